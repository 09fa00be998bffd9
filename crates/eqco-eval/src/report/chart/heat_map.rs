//! A table of numbers as shades, with the numbers in it where there is room.

use super::drawing::{Drawing, Text, text_width};
use super::legend::shortened;
use super::palette::shade;

/// Named rows and columns of values.
#[derive(Clone, Debug)]
pub(crate) struct HeatMap {
    pub(crate) title: String,
    /// What the rows are.
    pub(crate) row_title: String,
    /// What the columns are.
    pub(crate) column_title: String,
    pub(crate) rows: Vec<String>,
    pub(crate) columns: Vec<String>,
    /// Row by row; `None` where there is no value.
    pub(crate) values: Vec<Vec<Option<f64>>>,
    /// Text of every cell that has a value.
    pub(crate) texts: Vec<Vec<String>>,
    /// Values of the lightest and the darkest shade.
    pub(crate) range: [f64; 2],
    /// What the shades are, with the unit, and the labels of both ends.
    pub(crate) shade_title: String,
    pub(crate) shade_labels: [String; 2],
}

/// Where the cells are.
struct Layout {
    left: f64,
    top: f64,
    cell: [f64; 2],
    /// Whether names of columns stand upright below their columns.
    upright: bool,
    bottom_labels: f64,
}

impl HeatMap {
    /// Draws the map; cells shrink from 64 pixels with their number.
    pub(crate) fn draw(&self) -> Drawing {
        let layout = self.layout();
        let Layout {
            left,
            top,
            cell,
            bottom_labels,
            ..
        } = layout;
        let plot = [
            cell[0] * self.columns.len() as f64,
            cell[1] * self.rows.len() as f64,
        ];
        let title_width = text_width(&self.title, 14.0) * 1.08 + 28.0;
        let width = (left + plot[0] + 110.0).max(title_width).max(360.0);
        let height = top + plot[1] + bottom_labels + 30.0;
        let mut drawing = Drawing::new(width, height.max(top + 190.0), &self.title);
        let heading = Text {
            bold: true,
            ..Text::new(14.0, "start")
        };
        drawing.text([14.0, 22.0], heading, &self.title);
        self.draw_cells(&mut drawing, &layout);
        self.draw_names(&mut drawing, &layout);
        let below = [left + plot[0] / 2.0, top + plot[1] + bottom_labels + 18.0];
        drawing.text(below, Text::new(12.5, "middle"), &self.column_title);
        let turned = Text {
            turned: -90.0,
            ..Text::new(12.5, "middle")
        };
        drawing.text([18.0, top + plot[1] / 2.0], turned, &self.row_title);
        self.draw_shades(&mut drawing, [left + plot[0] + 22.0, top]);
        drawing
    }

    fn layout(&self) -> Layout {
        let widest = |names: &[String]| {
            (names.iter())
                .map(|name| text_width(&shortened(name, 130.0), 12.0))
                .fold(0.0, f64::max)
        };
        let most = self.rows.len().max(self.columns.len()).max(1) as f64;
        let side = (560.0 / most).clamp(6.0, 64.0);
        let cell = [side, side.min(44.0)];
        let names = widest(&self.columns);
        let upright = names < cell[0] - 4.0;
        Layout {
            left: widest(&self.rows) + 44.0,
            top: 40.0,
            cell,
            upright,
            // At 45 degrees a name needs 0.71 of its width below the cells.
            bottom_labels: if upright { 20.0 } else { names * 0.71 + 18.0 },
        }
    }

    fn draw_cells(&self, drawing: &mut Drawing, layout: &Layout) {
        let [width, height] = layout.cell;
        let [low, high] = self.range;
        let size = (height * 0.36).clamp(7.0, 12.5);
        for (row, (values, texts)) in self.values.iter().zip(&self.texts).enumerate() {
            for (column, (value, text)) in values.iter().zip(texts).enumerate() {
                let share = value.map_or(f64::NAN, |value| (value - low) / (high - low).max(1e-12));
                let (fill, ink) = shade(share);
                let (x, y) = (
                    layout.left + column as f64 * width,
                    layout.top + row as f64 * height,
                );
                let edge = if width > 12.0 { 1.0 } else { 0.0 };
                drawing.rect([x, y, width - edge, height - edge], &fill);
                if value.is_some() && text_width(text, size) <= width - 2.0 && height >= 12.0 {
                    let how = Text {
                        colour: ink,
                        ..Text::new(size, "middle")
                    };
                    drawing.text([x + width / 2.0, y + height / 2.0 + size * 0.36], how, text);
                }
            }
        }
    }

    fn draw_names(&self, drawing: &mut Drawing, layout: &Layout) {
        let [width, height] = layout.cell;
        let size = (height * 0.9).min(12.0);
        for (row, name) in self.rows.iter().enumerate() {
            let y = layout.top + (row as f64 + 0.5) * height + size * 0.36;
            drawing.text(
                [layout.left - 7.0, y],
                Text::new(size, "end"),
                &shortened(name, 130.0),
            );
        }
        let bottom = layout.top + self.rows.len() as f64 * height;
        for (column, name) in self.columns.iter().enumerate() {
            let x = layout.left + (column as f64 + 0.5) * width;
            let name = shortened(name, 130.0);
            if layout.upright {
                drawing.text([x, bottom + 16.0], Text::new(12.0, "middle"), &name);
            } else {
                let turned = Text {
                    turned: -45.0,
                    ..Text::new(size, "end")
                };
                drawing.text([x + 4.0, bottom + 12.0], turned, &name);
            }
        }
    }

    fn draw_shades(&self, drawing: &mut Drawing, [left, top]: [f64; 2]) {
        const STEPS: usize = 28;
        let height = 140.0 / STEPS as f64;
        for step in 0..STEPS {
            let share = 1.0 - step as f64 / (STEPS - 1) as f64;
            let y = top + step as f64 * height;
            drawing.rect([left, y, 14.0, height + 0.3], &shade(share).0);
        }
        drawing.outline([left, top, 14.0, 140.0], "#b6bec6");
        let [low, high] = &self.shade_labels;
        drawing.text([left + 19.0, top + 10.0], Text::new(12.0, "start"), high);
        drawing.text([left + 19.0, top + 140.0], Text::new(12.0, "start"), low);
        let labels = [low, high].map(|label| text_width(label, 12.0));
        let turned = Text {
            turned: -90.0,
            ..Text::new(12.0, "middle")
        };
        let beside = left + 36.0 + labels[0].max(labels[1]);
        drawing.text([beside, top + 70.0], turned, &self.shade_title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_its_shade_and_its_text() {
        let map = HeatMap {
            title: "t".into(),
            row_title: "r".into(),
            column_title: "c".into(),
            rows: vec!["1".into(), "2".into()],
            columns: vec!["<x>".into(), "y".into()],
            values: vec![vec![Some(10.0), Some(20.0)], vec![None, Some(15.0)]],
            texts: vec![
                vec!["10.0".into(), "20.0".into()],
                vec![String::new(), "15.0".into()],
            ],
            range: [10.0, 20.0],
            shade_title: "s".into(),
            shade_labels: ["10".into(), "20".into()],
        };
        let svg = map.draw().inline();
        for part in [
            "#f7fbff",
            "#08306b",
            "#6baed6",
            "#eaeef2",
            ">15.0</text>",
            "&lt;x&gt;",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
    }
}
