//! Points without axes, coloured by class.

use super::drawing::{Drawing, Text};
use super::legend::{Legend, Sample, marker};
use super::palette::Style;

/// The points of one class.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) points: Vec<[f64; 2]>,
}

/// A map of points; distances mean something, directions and units do not.
#[derive(Clone, Debug)]
pub(crate) struct Scatter {
    pub(crate) title: String,
    pub(crate) classes: Vec<Class>,
}

impl Scatter {
    /// Draws the map, 560 pixels wide, both directions to the same scale.
    pub(crate) fn draw(&self) -> Drawing {
        const SIDE: f64 = 480.0;
        let names: Vec<_> = (self.classes.iter())
            .map(|class| (class.name.clone(), class.style))
            .collect();
        let legend = Legend::new(&names, Sample::Point, 528.0);
        let mut drawing = Drawing::new(560.0, SIDE + 60.0 + legend.height(), &self.title);
        let heading = Text {
            bold: true,
            ..Text::new(14.0, "start")
        };
        drawing.text([14.0, 22.0], heading, &self.title);
        drawing.outline([14.0, 36.0, 532.0, SIDE], "#d5dbe1");
        let all = || (self.classes.iter()).flat_map(|class| &class.points);
        let bounds = |axis: usize| {
            all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
                (low.min(point[axis]), high.max(point[axis]))
            })
        };
        let ((left, right), (low, high)) = (bounds(0), bounds(1));
        let scale = ((right - left) / 510.0)
            .max((high - low) / (SIDE - 22.0))
            .max(1e-9);
        // Class after class would hide the first under the last: one point of each in turn.
        let longest = (self.classes.iter())
            .map(|class| class.points.len())
            .max()
            .unwrap_or(0);
        for turn in 0..longest {
            for class in &self.classes {
                if let Some(&[x, y]) = class.points.get(turn) {
                    let pixel = [
                        280.0 + (x - (left + right) / 2.0) / scale,
                        36.0 + SIDE / 2.0 - (y - (low + high) / 2.0) / scale,
                    ];
                    marker(&mut drawing, pixel, 3.0, class.style);
                }
            }
        }
        legend.draw(&mut drawing, [16.0, 36.0 + SIDE + 8.0]);
        drawing
    }
}

#[cfg(test)]
mod tests {
    use super::super::palette::style;
    use super::*;

    #[test]
    fn all_points_lie_within_the_frame() {
        let class = |name: &str, index, points| Class {
            name: name.into(),
            style: style(index),
            points,
        };
        let scatter = Scatter {
            title: "map".into(),
            classes: vec![
                class("a", 0, vec![[-3.0, 1.0], [100.0, 2.0]]),
                class("b", 1, vec![[5.0, -40.0]]),
            ],
        };
        let svg = scatter.draw().inline();
        let numbers = |key: &str| -> Vec<f64> {
            let parts = svg.split("<circle ").skip(1);
            parts
                .map(|part| {
                    part.split(key)
                        .nth(1)
                        .unwrap()
                        .split('"')
                        .next()
                        .unwrap()
                        .parse()
                        .unwrap()
                })
                .collect()
        };
        let (x, y) = (numbers("cx=\""), numbers("cy=\""));
        // Three points and two samples in the legend.
        assert_eq!(x.len(), 5, "{svg}");
        assert!(x[..3].iter().all(|&x| (14.0..=546.0).contains(&x)), "{x:?}");
        assert!(y[..3].iter().all(|&y| (36.0..=516.0).contains(&y)), "{y:?}");
    }
}
