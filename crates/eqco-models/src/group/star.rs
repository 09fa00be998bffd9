//! Processes around rank 0, which puts together what all have sent, in the order of ranks, and sends the result to all: every
//! rank has the same bits. Rank 0 moves (R−1) times the data of another rank: right for a few CPUs; GPUs have NCCL.

use super::error::GroupError;
use super::peer::{Kind, Peer};
use super::rendezvous::Rendezvous;

/// One process's view of the star.
#[derive(Debug)]
pub(super) struct Star {
    rank: usize,
    size: usize,
    /// On rank 0 all others in order, elsewhere rank 0 alone.
    peers: Vec<Peer>,
    has_left: bool,
}

impl Star {
    /// Waits until all are there.
    pub(super) fn meet(rendezvous: &Rendezvous) -> Result<Self, GroupError> {
        Ok(Self {
            rank: rendezvous.rank,
            size: rendezvous.size,
            peers: rendezvous.meet()?,
            has_left: false,
        })
    }

    /// The connections, to watch.
    #[cfg(feature = "nccl")]
    pub(super) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The sum of the `values` of all ranks over `divisor`, in place of them. The order of the sum is that of ranks.
    pub(super) fn sum(&mut self, values: &mut [f32], divisor: f32) -> Result<(), GroupError> {
        let mine = to_bytes(values);
        let length = mine.len();
        let total = self.fold(Kind::Sum, mine, length, |total, more| {
            for (total, more) in total.chunks_exact_mut(4).zip(more.chunks_exact(4)) {
                total.copy_from_slice(&(float(total) + float(more)).to_le_bytes());
            }
        })?;
        for (value, bytes) in values.iter_mut().zip(total.chunks_exact(4)) {
            *value = float(bytes) / divisor;
        }
        Ok(())
    }

    /// What all ranks have, as many values each, one after the other.
    pub(super) fn rows(&mut self, values: &[f32]) -> Result<Vec<f32>, GroupError> {
        let mine = to_bytes(values);
        let length = mine.len() * self.size;
        let all = self.fold(Kind::Rows, mine, length, |all, more| {
            all.extend_from_slice(more)
        })?;
        Ok(all.chunks_exact(4).map(float).collect())
    }

    /// The figures of all ranks, as many each, in order.
    pub(super) fn numbers(&mut self, mine: &[f64]) -> Result<Vec<Vec<f64>>, GroupError> {
        let bytes: Vec<u8> = mine.iter().flat_map(|value| value.to_le_bytes()).collect();
        let length = bytes.len() * self.size;
        let all = self.fold(Kind::Numbers, bytes, length, |all, more| {
            all.extend_from_slice(more)
        })?;
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let all: Vec<f64> = all.chunks_exact(8).map(number).collect();
        Ok((0..self.size)
            .map(|rank| all[rank * mine.len()..(rank + 1) * mine.len()].to_vec())
            .collect())
    }

    /// What rank 0 gives, on all ranks; the others give as many bytes that nobody reads.
    #[cfg(feature = "nccl")]
    pub(super) fn broadcast(&mut self, kind: Kind, mine: &[u8]) -> Result<Vec<u8>, GroupError> {
        self.fold(kind, mine.to_vec(), mine.len(), |_, _| ())
    }

    /// Tells all others why this rank takes no further part, once.
    pub(super) fn leave(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.has_left, true) {
            for peer in &mut self.peers {
                peer.leave(reason);
            }
        }
    }

    /// Rank 0's bytes, with those of the others `add`ed in order; `length` bytes in the end.
    fn fold(
        &mut self,
        kind: Kind,
        mine: Vec<u8>,
        length: usize,
        add: impl FnMut(&mut Vec<u8>, &[u8]),
    ) -> Result<Vec<u8>, GroupError> {
        let result = if self.rank == 0 {
            self.fold_all(kind, mine, add)
        } else {
            self.send_and_receive(kind, &mine, length)
        };
        // Nobody shall wait for a rank that goes no further.
        result.inspect_err(|error| self.leave(&error.to_string()))
    }

    fn fold_all(
        &mut self,
        kind: Kind,
        mine: Vec<u8>,
        mut add: impl FnMut(&mut Vec<u8>, &[u8]),
    ) -> Result<Vec<u8>, GroupError> {
        let length = mine.len();
        let mut total = mine;
        for peer in &mut self.peers {
            let more = peer.receive(kind, length)?;
            add(&mut total, &more);
        }
        for peer in &mut self.peers {
            peer.send(kind, &total)?;
        }
        Ok(total)
    }

    fn send_and_receive(
        &mut self,
        kind: Kind,
        mine: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, GroupError> {
        let [first] = self.peers.as_mut_slice() else {
            return Ok(mine.to_vec());
        };
        first.send(kind, mine)?;
        first.receive(kind, length)
    }
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().unwrap_or_default())
}
