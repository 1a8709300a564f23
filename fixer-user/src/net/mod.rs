//! Network namespaces, and the interfaces in them. With [`lab`](crate::lab), the only place that
//! speaks netlink.

pub mod claim;
pub mod filter;
pub mod lifetime;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod select;
pub mod turn;
