//! Horizontal bars of percentages.

use super::drawing::{Drawing, Text, text_width};
use super::legend::shortened;
use super::number::fixed;

const ROW: f64 = 22.0;

/// Percentages with names, one under the other.
#[derive(Clone, Debug)]
pub(crate) struct BarChart {
    pub(crate) title: String,
    /// What the bars are, with the unit.
    pub(crate) axis: String,
    /// Names with values from 0 to 100; `None` where there is nothing to measure.
    pub(crate) bars: Vec<(String, Option<f64>)>,
    /// A level to compare with, its name and value.
    pub(crate) level: (String, f64),
}

impl BarChart {
    /// Draws the chart, 560 pixels wide.
    pub(crate) fn draw(&self) -> Drawing {
        let names: Vec<String> = (self.bars.iter())
            .map(|(name, _)| shortened(name, 170.0))
            .collect();
        let widest = (names.iter())
            .map(|name| text_width(name, 12.0))
            .fold(0.0, f64::max);
        let (left, top) = (widest + 28.0, 42.0);
        let (width, height) = (560.0 - left - 50.0, self.bars.len() as f64 * ROW);
        let mut drawing = Drawing::new(560.0, top + height + 66.0, &self.title);
        let heading = Text {
            bold: true,
            ..Text::new(14.0, "start")
        };
        drawing.text([14.0, 22.0], heading, &self.title);
        let bottom = top + height;
        for percent in [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] {
            let x = left + width * percent / 100.0;
            drawing.polyline(&[[x, top], [x, bottom]], "#e4e8ec", 1.0, "");
            drawing.text(
                [x, bottom + 16.0],
                Text::new(12.0, "middle"),
                &fixed(percent, 0),
            );
        }
        for (row, (name, (_, value))) in names.iter().zip(&self.bars).enumerate() {
            let y = top + row as f64 * ROW;
            drawing.text([left - 8.0, y + 15.0], Text::new(12.0, "end"), name);
            let share = value.unwrap_or(0.0).clamp(0.0, 100.0) / 100.0;
            drawing.rect([left, y + 3.0, share * width, ROW - 6.0], "#0072B2");
            let label = value.map_or("–".to_owned(), |value| fixed(value, 1));
            drawing.text(
                [left + width + 42.0, y + 15.0],
                Text::new(12.0, "end"),
                &label,
            );
        }
        let (name, level) = &self.level;
        let x = left + width * level.clamp(0.0, 100.0) / 100.0;
        drawing.polyline(&[[x, top - 2.0], [x, bottom]], "#D55E00", 1.6, "4 3");
        let middle = left + width / 2.0;
        drawing.text(
            [middle, bottom + 34.0],
            Text::new(12.5, "middle"),
            &self.axis,
        );
        drawing.polyline(
            &[[left, bottom + 52.0], [left + 22.0, bottom + 52.0]],
            "#D55E00",
            1.6,
            "4 3",
        );
        drawing.text([left + 28.0, bottom + 56.0], Text::new(12.0, "start"), name);
        drawing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_value() {
        let chart = BarChart {
            title: "t".into(),
            axis: "%".into(),
            bars: vec![
                ("a".into(), Some(100.0)),
                ("b".into(), Some(25.0)),
                ("c".into(), None),
            ],
            level: ("all".into(), 50.0),
        };
        let svg = chart.draw().inline();
        let width = |bar: usize| -> f64 {
            let rest = svg.split("<rect").nth(bar + 2).unwrap();
            rest.split("width=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!((width(1) / width(0) - 0.25).abs() < 1e-3);
        assert_eq!(width(2), 0.0);
        assert!(svg.contains(">25.0</text>") && svg.contains(">–</text>"));
    }
}
