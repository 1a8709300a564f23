//! Figures as the measuring programs print them: what was measured in words, and a number.

/// What every line of figures starts with; before it the firmware may have put its own.
const MARK: &str = "fixer-bench: ";

/// What stands between the words of a figure.
const BETWEEN: &str = " | ";

/// What was measured, and in each round with which outcome.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(Vec<String>, Vec<f64>)>);

impl Figures {
    /// Takes note of a line, if it holds a figure, and says which.
    pub(crate) fn read(&mut self, line: &str) -> Option<String> {
        let (_, words) = line.split_once(MARK)?;
        let (about, number) = words.rsplit_once(' ')?;
        let key: Vec<_> = about.split(BETWEEN).map(str::to_owned).collect();
        let value = number.parse().ok()?;
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => self.0.push((key, vec![value])),
        }
        Some(format!("{about}: {number}"))
    }

    /// One figure in all rounds.
    pub(crate) fn of(&self, about: &[&str]) -> Option<Series> {
        let (_, values) = self.0.iter().find(|(known, _)| known == about)?;
        Some(Series(values.clone()))
    }

    /// What the figures about `first` are about at this place, each once.
    pub(crate) fn names(&self, first: &str, place: usize) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (key, _) in self.0.iter().filter(|(key, _)| key[0] == first) {
            if let Some(name) = key.get(place)
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names
    }
}

/// One figure, in the order of the rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    /// What was measured in the same rounds, put together pair by pair: what drifts from round to
    /// round then drifts in both.
    pub(crate) fn with(&self, other: &Self, combine: fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| combine(*one, *other)).collect())
    }

    /// The one in the middle.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the largest.
    pub(crate) fn range(&self) -> (f64, f64) {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        self.0.iter().fold(ends, |(least, most), value| (least.min(*value), most.max(*value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for line in [
            "\x1b[2Jfixer-bench: exact | empty | UDP 300 B 9022",
            "[    1.0] something else 7",
            "fixer-bench: exact | fixer | UDP 300 B 9050",
            "fixer-bench: exact | empty | UDP 300 B 9000",
            "fixer-bench: exact | fixer | UDP 300 B 9026",
            "fixer-bench: exact | fixer | UDP 300 B many",
        ] {
            figures.read(line);
        }
        figures
    }

    #[test]
    fn figures_are_found_by_what_they_are_about() {
        let figures = figures();
        assert_eq!(figures.names("exact", 1), ["empty", "fixer"]);
        assert_eq!(figures.names("exact", 2), ["UDP 300 B"]);
        assert_eq!(figures.names("felt", 1), [""; 0]);
        assert_eq!(figures.of(&["exact", "nft", "UDP 300 B"]), None);
    }

    #[test]
    fn figures_are_compared_round_by_round() {
        let figures = figures();
        let [fixer, empty] = ["fixer", "empty"].map(|way| figures.of(&["exact", way, "UDP 300 B"]));
        let added = fixer.unwrap().with(&empty.unwrap(), |one, other| one - other);
        assert_eq!(added, Series(vec![28.0, 26.0]));
        assert_eq!(added.range(), (26.0, 28.0));
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert!((Series(vec![9.0, 1.0, 2.0]).median() - 2.0).abs() < f64::EPSILON);
        assert!(Series(vec![]).median().is_nan());
    }
}
