//! Whether what was attached is still there. Others may take it off: a network service that sets the qdiscs
//! of an interface anew, an administrator, a tool that takes links apart.

use std::io;

use super::{
    attach::{Attachment, Held},
    load::Object,
    query::ids,
};
use crate::net::filter;

impl Object {
    /// Whether the kernel still has it at that interface of the calling thread's namespace.
    pub fn stands(&mut self, ifindex: u32, attachment: &Attachment) -> io::Result<bool> {
        let Attachment { hook, held, .. } = attachment;
        Ok(match held {
            Held::Link(_) => {
                let program = self.classifier(*hook).map_err(io::Error::other)?.info();
                let program = program.map_err(io::Error::other)?.id();
                ids(ifindex, *hook)?.contains(&program)
            }
            Held::Filter(ifindex, ours) => filter::filters(*ifindex, *hook)?.contains(ours),
        })
    }

    /// Lets go of what somebody took off: the kernel is not asked to take it off once more, for what is
    /// in its place now may be another's.
    pub fn forget(&mut self, attachment: Attachment) {
        if let (Held::Link(link), Ok(classifier)) =
            (attachment.held, self.classifier(attachment.hook))
        {
            // A link that is nowhere any more is only closed.
            let _ = classifier.detach(link);
        }
    }
}
