//! The legend: below the plot, in as many rows as its names need.

use super::drawing::{Drawing, Text, text_width};
use super::palette::{Shape, Style};

const SIZE: f64 = 12.0;
const ROW: f64 = 19.0;
const SAMPLE: f64 = 26.0;
const GAP: f64 = 18.0;

/// What stands before a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    Line,
    Point,
}

/// Names with their styles, laid out in a width.
#[derive(Debug)]
pub(crate) struct Legend {
    /// Left end, row, style and name of every entry.
    entries: Vec<(f64, usize, Style, String)>,
    sample: Sample,
}

impl Legend {
    /// Lays the names out, in one row or in columns; names longer than a row are cut.
    pub(crate) fn new(names: &[(String, Style)], sample: Sample, width: f64) -> Self {
        let names = names
            .iter()
            .map(|(name, style)| (shortened(name, width - SAMPLE), *style));
        let names: Vec<(String, Style)> = names.collect();
        let needed = |name: &str| SAMPLE + text_width(name, SIZE);
        let in_one_row: f64 = names.iter().map(|(name, _)| needed(name) + GAP).sum();
        // In several rows the names stand in columns, as wide as the widest.
        let widest = names
            .iter()
            .map(|(name, _)| needed(name) + GAP)
            .fold(1.0, f64::max);
        let columns = (((width + GAP) / widest) as usize).max(1);
        let is_one_row = in_one_row - GAP <= width;
        let (mut x, mut entries) = (0.0, Vec::new());
        for (place, (name, style)) in names.into_iter().enumerate() {
            if is_one_row {
                let wide = needed(&name) + GAP;
                entries.push((x, 0, style, name));
                x += wide;
            } else {
                entries.push((
                    (place % columns) as f64 * widest,
                    place / columns,
                    style,
                    name,
                ));
            }
        }
        Self { entries, sample }
    }

    /// Pixels that the legend needs; 0 without names.
    pub(crate) fn height(&self) -> f64 {
        (self.entries.last()).map_or(0.0, |(_, row, ..)| (row + 1) as f64 * ROW + 6.0)
    }

    /// Draws with the upper left corner at `[left, top]`.
    pub(crate) fn draw(&self, drawing: &mut Drawing, [left, top]: [f64; 2]) {
        for (x, row, style, name) in &self.entries {
            let (x, y) = (left + x, top + 12.0 + *row as f64 * ROW);
            match self.sample {
                Sample::Line => {
                    let ends = [[x, y], [x + SAMPLE - 6.0, y]];
                    drawing.polyline(&ends, style.colour, 2.2, style.dash);
                }
                Sample::Point => marker(drawing, [x + 12.0, y], 5.0, *style),
            }
            drawing.text([x + SAMPLE, y + 4.0], Text::new(SIZE, "start"), name);
        }
    }
}

/// Draws a point of a style.
pub(crate) fn marker(drawing: &mut Drawing, [x, y]: [f64; 2], radius: f64, style: Style) {
    let r = radius;
    let colour = style.colour;
    match style.shape {
        Shape::Circle => drawing.circle([x, y], r, colour),
        Shape::Square => {
            let s = r * 0.88;
            drawing.polygon(
                &[
                    [x - s, y - s],
                    [x + s, y - s],
                    [x + s, y + s],
                    [x - s, y + s],
                ],
                colour,
            );
        }
        Shape::Triangle => {
            drawing.polygon(
                &[
                    [x, y - r * 1.2],
                    [x + r * 1.1, y + r * 0.8],
                    [x - r * 1.1, y + r * 0.8],
                ],
                colour,
            );
        }
        Shape::Diamond => {
            let s = r * 1.25;
            drawing.polygon(&[[x, y - s], [x + s, y], [x, y + s], [x - s, y]], colour);
        }
    }
}

/// `name`, cut with `…` where it is wider than `width` pixels at the legend's size.
pub(crate) fn shortened(name: &str, width: f64) -> String {
    if text_width(name, SIZE) <= width {
        return name.to_owned();
    }
    let mut text = String::new();
    for letter in name.chars() {
        text.push(letter);
        if text_width(&text, SIZE) + text_width("…", SIZE) > width {
            text.pop();
            break;
        }
    }
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::super::palette::style;
    use super::*;

    #[test]
    fn names_flow_into_rows_and_never_overlap() {
        let names: Vec<(String, Style)> = (0..9)
            .map(|i| (format!("rule number {i}"), style(i)))
            .collect();
        let legend = Legend::new(&names, Sample::Line, 300.0);
        assert!(legend.height() > 2.0 * ROW, "{legend:?}");
        for pair in legend.entries.windows(2) {
            let [(x, row, _, name), (next_x, next_row, ..)] = pair else {
                unreachable!()
            };
            let end = x + SAMPLE + text_width(name, SIZE);
            assert!(next_row > row || *next_x >= end + GAP - 1e-9, "{legend:?}");
            assert!(end <= 300.0, "{legend:?}");
        }
        assert_eq!(Legend::new(&[], Sample::Point, 300.0).height(), 0.0);
    }

    #[test]
    fn a_name_wider_than_the_picture_is_cut() {
        let cut = shortened(&"long ".repeat(100), 100.0);
        assert!(
            cut.ends_with('…') && text_width(&cut, SIZE) <= 101.0,
            "{cut}"
        );
        assert_eq!(shortened("short", 100.0), "short");
    }
}
