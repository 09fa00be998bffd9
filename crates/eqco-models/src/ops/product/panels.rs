//! Matrices laid out for [`Product`](super::Product): panels of [`PANEL`] columns, one behind the other, padded with zeros.

use std::ops::Range;

use rayon::prelude::*;

use super::PANEL;
use crate::ops::factor::{Factor, words};
use crate::ops::lanes::vectorized;
use crate::ops::scratch::with_scratch;
use crate::ops::square::{SIDE, transposed};

/// Words that panels of a `[inner, columns]` matrix of factors take.
pub(crate) fn panels_len<F: Factor>(inner: usize, columns: usize) -> usize {
    words::<F>(inner) * columns.next_multiple_of(PANEL)
}

/// Weights as a matrix `[inner, columns]` to be packed.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) columns: usize,
    pub(crate) order: Order<'a>,
}

/// Where the elements of a matrix of weights lie.
#[derive(Clone, Copy)]
pub(crate) enum Order<'a> {
    /// Row by row, each row in one piece from the given place.
    Rows(&'a [usize]),
    /// Column by column, all of this length.
    Columns(usize),
}

impl Weights<'_> {
    /// Calls `f` with the packed weights.
    pub(crate) fn with_panels<F: Factor>(&self, f: impl FnOnce(&[f32])) {
        with_scratch(panels_len::<F>(self.inner(), self.columns), |panels| {
            self.pack::<F>(panels);
            f(panels);
        });
    }

    fn inner(&self) -> usize {
        match self.order {
            Order::Rows(places) => places.len(),
            Order::Columns(inner) => inner,
        }
    }

    /// Rounds to factors and packs, on all threads. Each reads long pieces of the rows: the panels of its share lie side by
    /// side there.
    pub(crate) fn pack<F: Factor>(&self, panels: &mut [f32]) {
        let inner = self.inner();
        if inner == 0 {
            return;
        }
        let panel = words::<F>(inner) * PANEL;
        let count = self.columns.div_ceil(PANEL);
        let share = count.div_ceil(rayon::current_num_threads());
        panels
            .par_chunks_mut(share * panel)
            .enumerate()
            .for_each(|(index, panels)| {
                let first = index * share * PANEL;
                let columns = first..self.columns.min(first + share * PANEL);
                vectorized(
                    #[inline(always)]
                    || match self.order {
                        Order::Rows(places) => self.pack_rows::<F>(places, columns, panels),
                        Order::Columns(inner) => self.pack_columns::<F>(inner, columns, panels),
                    },
                );
            });
    }

    #[inline(always)]
    fn pack_rows<F: Factor>(&self, places: &[usize], columns: Range<usize>, panels: &mut [f32]) {
        let panel = words::<F>(places.len()) * PANEL;
        let mut rows = [[F::ZERO; PANEL]; 2];
        for (word, places) in places.chunks(F::DEPTH).enumerate() {
            for (first, panel) in columns.clone().step_by(PANEL).zip(panels.chunks_mut(panel)) {
                let width = PANEL.min(columns.end - first);
                if width < PANEL || places.len() < F::DEPTH {
                    rows = [[F::ZERO; PANEL]; 2];
                }
                for (row, place) in rows.iter_mut().zip(places) {
                    let values = &self.values[place + first..][..width];
                    F::store_all(values, &mut row[..width]);
                }
                let words = &mut panel[word * PANEL..][..PANEL];
                F::interleave([&rows[0], &rows[1]], words);
            }
        }
    }

    #[inline(always)]
    fn pack_columns<F: Factor>(&self, inner: usize, columns: Range<usize>, panels: &mut [f32]) {
        let panel = words::<F>(inner) * PANEL;
        for (first, panel) in columns.clone().step_by(PANEL).zip(panels.chunks_mut(panel)) {
            for half in (0..PANEL).step_by(SIDE) {
                let end = columns.end.min(first + half + SIDE);
                for (step, words) in panel.chunks_mut(SIDE * PANEL).enumerate() {
                    let from = step * SIDE * F::DEPTH;
                    let count = (inner - from).min(SIDE * F::DEPTH);
                    let mut square = [[0.0; SIDE]; SIDE];
                    for (column, line) in (first + half..end).zip(&mut square) {
                        let values = &self.values[column * inner + from..][..count];
                        F::store_all(values, &mut F::of_words(line)[..count]);
                    }
                    for (words, line) in words.chunks_exact_mut(PANEL).zip(transposed(&square)) {
                        words[half..half + SIDE].copy_from_slice(&line);
                    }
                }
            }
        }
    }
}
