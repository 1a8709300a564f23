//! Network namespaces, and the interfaces in them. With [`lab`](crate::lab), the only place that
//! speaks netlink.

pub mod claim;
pub mod filter;
pub mod inspect;
pub mod lifetime;
pub mod links;
pub mod named;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod offload;
pub mod route;
mod sealed;
pub mod select;
pub mod summing;
pub mod turn;
