//! What is said in an exchange.

use std::fmt;

/// How many turns of the conversation are remembered. Only a flood has more.
const MOST: usize = 8;

/// What is said in a message: its type, of those that make a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Discover,
    Offer,
    Request,
    Ack,
    Nak,
    Decline,
    Release,
    Inform,
}

/// Each with its name, and with the letter that it is shown by: a small one where a client gives an
/// address back.
const WORDS: [(Word, &str, char); 8] = [
    (Word::Discover, "discover", 'D'),
    (Word::Offer, "offer", 'O'),
    (Word::Request, "request", 'R'),
    (Word::Ack, "ack", 'A'),
    (Word::Nak, "nak", 'N'),
    (Word::Decline, "decline", 'd'),
    (Word::Release, "release", 'r'),
    (Word::Inform, "inform", 'I'),
];

impl Word {
    /// The word that a message's type is called by.
    pub(super) fn of(name: &str) -> Option<Self> {
        WORDS.iter().find(|(_, other, _)| *other == name).map(|(word, ..)| *word)
    }

    pub(super) fn name(self) -> &'static str {
        WORDS[self as usize].1
    }

    /// Whether clients say it, and not servers.
    pub(super) fn is_clients(self) -> bool {
        !matches!(self, Self::Offer | Self::Ack | Self::Nak)
    }
}

/// What was said in an exchange, in its order. Shown, it is a letter for each message, with a number
/// where one came several times in a row: `D3ORA`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages(Vec<(Word, u32)>);

impl Messages {
    /// One more was said.
    pub(super) fn add(&mut self, word: Word) {
        match self.0.last_mut() {
            Some((last, times)) if *last == word => *times = times.saturating_add(1),
            _ => {
                if self.0.len() == MOST {
                    self.0.remove(0);
                }
                self.0.push((word, 1));
            }
        }
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(word, times)| {
            let (.., letter) = WORDS[*word as usize];
            match times {
                1 => write!(f, "{letter}"),
                times => write!(f, "{letter}{times}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[Word]) -> String {
        let mut messages = Messages::default();
        words.iter().for_each(|word| messages.add(*word));
        messages.to_string()
    }

    #[test]
    fn every_word_has_its_row() {
        for (number, (word, name, _)) in WORDS.iter().enumerate() {
            assert_eq!((*word as usize, Word::of(name)), (number, Some(*word)));
        }
    }

    #[test]
    fn what_is_repeated_is_counted() {
        use Word::{Ack, Discover, Offer, Request};
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&[Discover, Offer, Request, Ack]), "DORA");
        assert_eq!(shown(&[Discover, Discover, Discover, Offer, Offer, Request]), "D3O2R");
        assert_eq!(shown(&[Discover, Offer].repeat(100)), "DODODODO");
    }
}
