//! `fixer top`: what is attached, as a picture that moves.
//!
//! A [`sampler`] looks at the kernel, a [`model`] makes rates and a past of its samples, a [`state`] is
//! the model with what the user wants to see of it, and the [`view`] draws the state, the [`table`] in it. Only the sampler
//! needs a kernel, and nothing here needs a terminal.

pub mod model;
pub mod sampler;
pub mod state;
pub mod table;
pub mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod frames;
