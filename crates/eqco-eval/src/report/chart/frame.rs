//! The part that charts with two axes share: title, axes, grid, legend.

use super::drawing::{Drawing, INK, Text, text_width};
use super::legend::Legend;
use super::scale::Scale;

const GRID: &str = "#e4e8ec";
const TICK_SIZE: f64 = 12.0;

/// An axis: what it shows, with the unit, and where values stand.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) title: String,
    pub(crate) scale: Scale,
}

/// A drawn frame that data can be put into.
pub(crate) struct Frame {
    pub(crate) drawing: Drawing,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Frame {
    /// Draws title, axes and grid on a picture `width` pixels wide, with a plot `height` pixels high and a legend below.
    pub(crate) fn new(
        title: &str,
        x: &Axis,
        y: &Axis,
        legend: &Legend,
        [width, height]: [f64; 2],
    ) -> Self {
        let labels = y.scale.ticks().iter();
        let label_width = labels
            .map(|tick| text_width(&tick.label, TICK_SIZE))
            .fold(0.0, f64::max);
        let (left, top) = (label_width + 38.0, 40.0);
        let bottom = 50.0 + legend.height();
        let mut frame = Self {
            drawing: Drawing::new(width, top + height + bottom, title),
            left,
            top,
            width: width - left - 24.0,
            height,
        };
        let heading = Text {
            bold: true,
            ..Text::new(14.0, "start")
        };
        frame.drawing.text([14.0, 22.0], heading, title);
        frame.draw_y(y);
        frame.draw_x(x);
        let outline = [left, top, frame.width, height];
        frame.drawing.outline(outline, "#b6bec6");
        legend.draw(&mut frame.drawing, [16.0, top + height + 48.0]);
        frame
    }

    fn draw_y(&mut self, axis: &Axis) {
        for tick in axis.scale.ticks() {
            let y = self.top + (1.0 - tick.place) * self.height;
            self.drawing.polyline(
                &[[self.left, y], [self.left + self.width, y]],
                GRID,
                1.0,
                "",
            );
            self.drawing.text(
                [self.left - 7.0, y + 4.0],
                Text::new(TICK_SIZE, "end"),
                &tick.label,
            );
        }
        let turned = Text {
            turned: -90.0,
            ..Text::new(12.5, "middle")
        };
        self.drawing
            .text([18.0, self.top + self.height / 2.0], turned, &axis.title);
    }

    fn draw_x(&mut self, axis: &Axis) {
        let bottom = self.top + self.height;
        let mut free_from = f64::NEG_INFINITY;
        for tick in axis.scale.ticks() {
            let x = self.left + tick.place * self.width;
            self.drawing
                .polyline(&[[x, self.top], [x, bottom]], GRID, 1.0, "");
            self.drawing
                .polyline(&[[x, bottom], [x, bottom + 4.0]], INK, 1.0, "");
            let half = text_width(&tick.label, TICK_SIZE) / 2.0;
            // A label that would touch the last one is left away; its tick stays.
            if x - half >= free_from {
                self.drawing.text(
                    [x, bottom + 17.0],
                    Text::new(TICK_SIZE, "middle"),
                    &tick.label,
                );
                free_from = x + half + 5.0;
            }
        }
        let middle = self.left + self.width / 2.0;
        self.drawing.text(
            [middle, bottom + 37.0],
            Text::new(12.5, "middle"),
            &axis.title,
        );
    }

    /// The pixel of a value on both axes, kept within the plot.
    pub(crate) fn pixel(&self, x: &Axis, y: &Axis, [at_x, at_y]: [f64; 2]) -> [f64; 2] {
        [
            self.left + x.scale.place(at_x).clamp(0.0, 1.0) * self.width,
            self.top + (1.0 - y.scale.place(at_y).clamp(0.0, 1.0)) * self.height,
        ]
    }

    /// Both ends of the horizontal line at a value.
    pub(crate) fn across(&self, y: &Axis, value: f64) -> [[f64; 2]; 2] {
        let y = self.top + (1.0 - y.scale.place(value).clamp(0.0, 1.0)) * self.height;
        [[self.left, y], [self.left + self.width, y]]
    }
}
