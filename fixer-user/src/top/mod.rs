//! `fixer top`: what is attached, as a picture that moves.
//!
//! A [`sampler`] looks at the kernel and [`ears`] listen to who hands out events. A [`model`] makes rates
//! and a past of the samples, and [`heard`] makes exchanges of the events. A [`state`] is the model with what
//! the user wants to see of it, and the [`view`] draws it: the [`table`] of what is attached, and that of the
//! [`exchanges`]. Only the sampler and the ears need a kernel, and nothing here needs a terminal.

mod columns;
pub mod ears;
pub mod exchanges;
pub mod heard;
pub mod model;
pub mod sampler;
pub mod state;
pub mod table;
pub mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod frames;
