//! Lines over two axes, with bands around them and horizontal levels.

use super::drawing::Drawing;
use super::frame::{Axis, Frame};
use super::legend::{Legend, Sample, marker};
use super::palette::Style;

/// A named line through points from left to right. A point that is not finite interrupts it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) points: Vec<[f64; 2]>,
    /// `[x, low, high]`, from left to right; may be empty.
    pub(crate) band: Vec<[f64; 3]>,
    /// Whether every point is marked; a point without neighbours always is.
    pub(crate) marked: bool,
}

/// A horizontal line over the whole width.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    /// Entry in the legend; `None` where another level's entry speaks for this one.
    pub(crate) name: Option<String>,
    pub(crate) style: Style,
    pub(crate) value: f64,
}

/// A chart of lines.
#[derive(Clone, Debug)]
pub(crate) struct LineChart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    pub(crate) levels: Vec<Level>,
}

impl LineChart {
    /// Draws the chart, 560 pixels wide.
    pub(crate) fn draw(&self) -> Drawing {
        let names: Vec<(String, Style)> = (self.lines.iter())
            .map(|line| (line.name.clone(), line.style))
            .chain(
                (self.levels.iter()).filter_map(|level| Some((level.name.clone()?, level.style))),
            )
            .collect();
        let legend = Legend::new(&names, Sample::Line, 528.0);
        let mut frame = Frame::new(&self.title, &self.x, &self.y, &legend, [560.0, 250.0]);
        for line in &self.lines {
            self.draw_band(&mut frame, line);
        }
        for level in &self.levels {
            self.draw_level(&mut frame, level);
        }
        for line in &self.lines {
            self.draw_line(&mut frame, line);
        }
        frame.drawing
    }

    fn draw_band(&self, frame: &mut Frame, line: &Line) {
        let is_whole =
            |[x, low, high]: &[f64; 3]| x.is_finite() && low.is_finite() && high.is_finite();
        for part in line.band.chunk_by(|a, b| is_whole(a) == is_whole(b)) {
            if part.len() < 2 || !part.iter().all(is_whole) {
                continue;
            }
            let low = part.iter().map(|&[x, low, _]| [x, low]);
            let high = part.iter().rev().map(|&[x, _, high]| [x, high]);
            let corners: Vec<[f64; 2]> = low
                .chain(high)
                .map(|point| frame.pixel(&self.x, &self.y, point))
                .collect();
            frame.drawing.area(&corners, line.style.colour);
        }
    }

    fn draw_level(&self, frame: &mut Frame, level: &Level) {
        if !level.value.is_finite() || !(0.0..=1.0).contains(&self.y.scale.place(level.value)) {
            return;
        }
        let ends = frame.across(&self.y, level.value);
        frame
            .drawing
            .polyline(&ends, level.style.colour, 1.4, level.style.dash);
    }

    fn draw_line(&self, frame: &mut Frame, line: &Line) {
        let is_whole = |[x, y]: &[f64; 2]| x.is_finite() && y.is_finite();
        for part in line.points.chunk_by(|a, b| is_whole(a) == is_whole(b)) {
            if !part.iter().all(is_whole) {
                continue;
            }
            let pixels: Vec<[f64; 2]> = (part.iter())
                .map(|&point| frame.pixel(&self.x, &self.y, point))
                .collect();
            if pixels.len() > 1 {
                frame
                    .drawing
                    .polyline(&pixels, line.style.colour, 1.8, line.style.dash);
            }
            if line.marked || pixels.len() == 1 {
                for pixel in pixels {
                    marker(&mut frame.drawing, pixel, 4.0, line.style);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::palette::style;
    use super::super::scale::Scale;
    use super::*;

    #[test]
    fn a_gap_interrupts_a_line_and_a_lonely_point_is_marked() {
        let points = vec![[0.0, 0.0], [1.0, 1.0], [2.0, f64::NAN], [3.0, 1.0]];
        let chart = LineChart {
            title: "t".into(),
            x: Axis {
                title: "x".into(),
                scale: Scale::from_zero(3.0),
            },
            y: Axis {
                title: "y".into(),
                scale: Scale::linear([0.0, 1.0].into_iter()),
            },
            lines: vec![Line {
                name: "<a>".into(),
                style: style(0),
                points,
                band: vec![[0.0, -1.0, 1.0], [1.0, 0.0, 2.0]],
                marked: false,
            }],
            levels: vec![Level {
                name: Some("chance".into()),
                style: Style::REFERENCE,
                value: 0.5,
            }],
        };
        let svg = chart.draw().inline();
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        assert_eq!(svg.matches("stroke-width=\"1.8\"").count(), 1);
        assert_eq!(svg.matches("<polygon").count(), 1);
        assert!(svg.contains("&lt;a&gt;") && svg.contains(">chance</text>"));
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
