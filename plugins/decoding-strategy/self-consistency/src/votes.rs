//! Counting: which answer most paths came to.

/// Answers in the order in which they were first given.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    answers: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    answer: String,
    votes: usize,
    /// The first path that gave it.
    path: usize,
}

impl Votes {
    /// A path has come to an answer.
    pub(crate) fn add(&mut self, answer: String, path: usize) {
        match self.answers.iter_mut().find(|counted| counted.answer == answer) {
            Some(counted) => counted.votes += 1,
            None => self.answers.push(Counted { answer, votes: 1, path }),
        }
    }

    /// The place of the answer with most votes; of several the one that was given first.
    fn leader(&self) -> Option<usize> {
        let places = 0..self.answers.len();
        places.max_by_key(|&place| (self.answers[place].votes, std::cmp::Reverse(place)))
    }

    /// The first path that gave the answer with most votes.
    pub(crate) fn winner(&self) -> Option<usize> {
        self.leader().map(|place| self.answers[place].path)
    }

    /// Whether so many further votes can change nothing.
    pub(crate) fn is_decided(&self, left: usize) -> bool {
        let Some(leader) = self.leader() else { return left == 0 };
        let most = self.answers[leader].votes;
        let can_win = |(place, counted): (usize, &Counted)| {
            let reach = counted.votes + left;
            place != leader && (reach > most || (reach == most && place < leader))
        };
        // What nobody has given yet wins no tie.
        left <= most && !self.answers.iter().enumerate().any(can_win)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_wins_and_the_first_of_equals() {
        #[rustfmt::skip]
        let cases: [(&[&str], usize, Option<usize>, bool); 9] = [
            // given                 left  winner    decided
            (&[],                     0,   None,     true),
            (&[],                     1,   None,     false),
            (&["a"],                  1,   Some(0),  true),
            (&["a"],                  2,   Some(0),  false),
            (&["a", "b", "b"],        0,   Some(1),  true),
            (&["a", "b", "b"],        1,   Some(1),  false),
            (&["a", "a", "b"],        1,   Some(0),  true),
            (&["a", "b", "b", "a"],   0,   Some(0),  true),
            (&["c", "b", "b", "b"],   1,   Some(1),  true),
        ];
        for (given, left, winner, is_decided) in cases {
            let mut votes = Votes::default();
            for (path, answer) in given.iter().enumerate() {
                votes.add((*answer).to_owned(), path);
            }
            assert_eq!((votes.winner(), votes.is_decided(left)), (winner, is_decided), "{given:?}");
        }
    }

    #[test]
    fn what_is_decided_stays_so_whatever_is_given() {
        // All ways to give three answers seven times: an early decision is the late one.
        for code in 0..3_usize.pow(7) {
            let given: Vec<usize> = (0..7).map(|i| code / 3_usize.pow(i) % 3).collect();
            let (mut votes, mut decided) = (Votes::default(), None);
            for (path, answer) in given.iter().enumerate() {
                votes.add(answer.to_string(), path);
                if votes.is_decided(6 - path) {
                    decided.get_or_insert(votes.winner());
                }
            }
            assert_eq!(decided, Some(votes.winner()), "{given:?}");
        }
    }
}
