//! Colours and patterns that stay apart for colour-blind eyes and in print.

/// Okabe and Ito's palette (2008) in an order that keeps neighbours apart, its yellow, which is faint on white, left out.
const COLOURS: [&str; 7] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333",
];

/// Patterns of lines; each goes through all colours before the next one begins.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// Shapes of points, in the order of the patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
}

const SHAPES: [Shape; 4] = [
    Shape::Circle,
    Shape::Square,
    Shape::Triangle,
    Shape::Diamond,
];

/// How one line or class looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) colour: &'static str,
    pub(crate) dash: &'static str,
    pub(crate) shape: Shape,
}

impl Style {
    /// How many styles there are before they begin anew.
    pub(crate) const COUNT: usize = COLOURS.len() * DASHES.len();

    /// For what belongs to no line: grey and dotted.
    pub(crate) const REFERENCE: Self = Self {
        colour: "#6e7781",
        dash: "3 3",
        shape: Shape::Circle,
    };
}

/// The style of the line or class `index`.
pub(crate) fn style(index: usize) -> Style {
    let pattern = index / COLOURS.len() % DASHES.len();
    Style {
        colour: COLOURS[index % COLOURS.len()],
        dash: DASHES[pattern],
        shape: SHAPES[pattern],
    }
}

/// White to dark blue for 0 to 1 (ColorBrewer's Blues), with the colour of text that is readable on it. What is not a number
/// is grey.
pub(crate) fn shade(share: f64) -> (String, &'static str) {
    const STOPS: [[f64; 3]; 5] = [
        [247.0, 251.0, 255.0],
        [198.0, 219.0, 239.0],
        [107.0, 174.0, 214.0],
        [33.0, 113.0, 181.0],
        [8.0, 48.0, 107.0],
    ];
    if share.is_nan() {
        return ("#eaeef2".to_owned(), super::drawing::INK);
    }
    let along = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (along as usize).min(STOPS.len() - 2);
    let part = along - below as f64;
    let mix = |channel: usize| {
        let (low, high) = (STOPS[below][channel], STOPS[below + 1][channel]);
        (low + (high - low) * part).round() as u8
    };
    let text = if share > 0.55 {
        "#ffffff"
    } else {
        super::drawing::INK
    };
    (format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2)), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_styles_differ_until_they_begin_anew() {
        for index in 0..Style::COUNT {
            assert_eq!(
                (0..Style::COUNT)
                    .filter(|&other| style(other) == style(index))
                    .count(),
                1
            );
        }
        assert_eq!(style(Style::COUNT), style(0));
    }

    #[test]
    fn shades_run_from_white_to_dark() {
        assert_eq!(shade(0.0).0, "#f7fbff");
        assert_eq!(shade(0.5).0, "#6baed6");
        assert_eq!(shade(7.0), ("#08306b".to_owned(), "#ffffff"));
        assert_eq!(shade(f64::NAN).0, "#eaeef2");
    }
}
