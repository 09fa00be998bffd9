//! Charts as SVG: lines, bars, heat maps and scatters.
//!
//! Written here and not with a plotting crate, because a page of results needs what those leave to luck: ticks exactly at
//! the values of K that were run, a legend below the plot that cannot cover a line, room for labels as long as they are.
//! It is string building for the most part, and costs no build time.

mod bars;
mod drawing;
mod frame;
mod heat_map;
mod legend;
mod line_chart;
mod number;
mod palette;
mod scale;
mod scatter;

pub(crate) use bars::BarChart;
pub(crate) use drawing::{Drawing, Text, escape, text_width};
pub(crate) use frame::Axis;
pub(crate) use heat_map::HeatMap;
pub(crate) use line_chart::{Level, Line, LineChart};
pub(crate) use number::{fixed, grouped, significant};
pub(crate) use palette::{Style, style};
pub(crate) use scale::Scale;
pub(crate) use scatter::{Class, Scatter};
