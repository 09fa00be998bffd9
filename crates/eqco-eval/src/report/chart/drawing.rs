//! An SVG picture under construction: shapes, text, and how wide text is.

use std::fmt::Write;

/// Fonts that are on every system; the first two have the same metrics as what [`text_width`] assumes.
const FONTS: &str = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

/// Colour of text and axes.
pub(crate) const INK: &str = "#24292f";

/// A picture of a size in pixels; everything is drawn in order, later things above earlier ones.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    /// What the picture shows, for those who cannot see it.
    title: String,
    body: String,
}

/// How a text stands: `size` in pixels, anchored at its start, middle or end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    pub(crate) size: f64,
    pub(crate) anchor: &'static str,
    pub(crate) bold: bool,
    pub(crate) colour: &'static str,
    /// Degrees clockwise around the anchor.
    pub(crate) turned: f64,
}

impl Text {
    /// Upright text in ink.
    pub(crate) fn new(size: f64, anchor: &'static str) -> Self {
        Self {
            size,
            anchor,
            bold: false,
            colour: INK,
            turned: 0.0,
        }
    }
}

impl Drawing {
    /// A white picture.
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut drawing = Self {
            width,
            height,
            title: title.to_owned(),
            body: String::new(),
        };
        drawing.rect([0.0, 0.0, width, height], "#ffffff");
        drawing
    }

    /// Pixels from left to right.
    pub(crate) fn width(&self) -> f64 {
        self.width
    }

    /// The picture as an element of an HTML page.
    pub(crate) fn inline(&self) -> String {
        self.element("")
    }

    /// The picture as a file of its own.
    pub(crate) fn document(&self) -> String {
        let namespace = " xmlns=\"http://www.w3.org/2000/svg\"";
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n",
            self.element(namespace)
        )
    }

    fn element(&self, namespace: &str) -> String {
        let (width, height) = (coordinate(self.width), coordinate(self.height));
        let title = escape(&self.title);
        format!(
            "<svg{namespace} viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             font-family=\"{FONTS}\"><title>{title}</title>\n{}</svg>",
            self.body
        )
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// A filled rectangle `[x, y, width, height]`.
    pub(crate) fn rect(&mut self, [x, y, width, height]: [f64; 4], fill: &str) {
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(coordinate);
        self.put(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        ));
    }

    /// An empty rectangle `[x, y, width, height]`.
    pub(crate) fn outline(&mut self, [x, y, width, height]: [f64; 4], colour: &str) {
        let [x, y, width, height] = [x, y, width, height].map(coordinate);
        self.put(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"{colour}\"/>"
        ));
    }

    /// A line through `points`; `dash` is a pattern as SVG has it, empty for a solid line.
    pub(crate) fn polyline(&mut self, points: &[[f64; 2]], colour: &str, width: f64, dash: &str) {
        let dash = match dash {
            "" => String::new(),
            dash => format!(" stroke-dasharray=\"{dash}\""),
        };
        self.put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\"{dash}/>",
            joined(points)
        ));
    }

    /// A filled area that lets what is below shine through.
    pub(crate) fn area(&mut self, points: &[[f64; 2]], colour: &str) {
        self.put(format_args!(
            "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\"0.16\"/>",
            joined(points)
        ));
    }

    /// A filled polygon with a thin white edge, so that neighbours stay apart.
    pub(crate) fn polygon(&mut self, points: &[[f64; 2]], colour: &str) {
        self.put(format_args!(
            "<polygon points=\"{}\" fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"0.5\"/>",
            joined(points)
        ));
    }

    /// A filled circle with a thin white edge.
    pub(crate) fn circle(&mut self, [x, y]: [f64; 2], radius: f64, colour: &str) {
        let [x, y] = [x, y].map(coordinate);
        self.put(format_args!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"0.5\"/>"
        ));
    }

    /// A text whose baseline is at `y`.
    pub(crate) fn text(&mut self, [x, y]: [f64; 2], how: Text, text: &str) {
        let [x, y] = [x, y].map(coordinate);
        let weight = if how.bold {
            " font-weight=\"bold\""
        } else {
            ""
        };
        let turn = match how.turned {
            0.0 => String::new(),
            degrees => format!(" transform=\"rotate({degrees} {x} {y})\""),
        };
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" text-anchor=\"{}\" fill=\"{}\"{weight}{turn}>{}</text>",
            how.size,
            how.anchor,
            how.colour,
            escape(text)
        ));
    }

    /// A picture within the picture, `[x, y, width, height]`; `data` is its `data:` address.
    pub(crate) fn image(&mut self, [x, y, width, height]: [f64; 4], data: &str) {
        let [x, y, width, height] = [x, y, width, height].map(coordinate);
        self.put(format_args!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" href=\"{data}\"/>"
        ));
    }
}

/// At most two decimals: a hundredth of a pixel is nothing.
fn coordinate(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

fn joined(points: &[[f64; 2]]) -> String {
    let pairs: Vec<String> = points
        .iter()
        .map(|&[x, y]| format!("{},{}", coordinate(x), coordinate(y)))
        .collect();
    pairs.join(" ")
}

/// Text for HTML and SVG, within elements and within quoted attributes. Control characters, which neither allows, become
/// the sign for something unreadable.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Width of `text` in pixels at a font size of `size` pixels, from the widths of Helvetica's letters in groups; a little
/// more than the truth, so that what is laid out by it does not touch.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let letter = |letter: char| match letter {
        'i' | 'j' | 'l' | '\'' | '|' => 0.24,
        ' ' | ',' | '.' | ':' | ';' | 'f' | 't' | 'I' | '!' | '/' => 0.29,
        'r' | '(' | ')' | '-' | '[' | ']' => 0.35,
        'c' | 'k' | 's' | 'v' | 'x' | 'y' | 'z' | 'J' => 0.51,
        'm' | 'M' | 'W' | 'w' | '%' | '@' => 0.85,
        letter if letter.is_ascii_uppercase() => 0.70,
        letter if letter.is_ascii() => 0.57,
        letter if (letter as u32) < 0x2e80 => 0.62,
        _ => 1.0,
    };
    text.chars().map(letter).sum::<f64>() * size * 1.05
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_would_read_as_markup_is_escaped() {
        assert_eq!(
            escape("<script>alert('a' & \"b\")</script>\u{1}"),
            "&lt;script&gt;alert(&#39;a&#39; &amp; &quot;b&quot;)&lt;/script&gt;\u{fffd}"
        );
        assert_eq!(escape("grün α=256"), "grün α=256");
    }

    #[test]
    fn a_file_names_its_namespace_and_an_inline_picture_refers_to_nothing() {
        let mut drawing = Drawing::new(20.0, 10.5, "a < b");
        drawing.text([1.0, 2.346], Text::new(12.0, "end"), "x & y");
        let document = drawing.document();
        assert!(document.contains("xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 20 10.5\""));
        assert!(document.contains("<title>a &lt; b</title>"), "{document}");
        assert!(document.contains("x=\"1\" y=\"2.35\""), "{document}");
        assert!(document.contains(">x &amp; y</text>"), "{document}");
        assert!(!drawing.inline().contains("http"));
    }

    #[test]
    fn wide_letters_are_wider_than_thin_ones() {
        assert!(text_width("WWWW", 12.0) > 3.0 * text_width("iiii", 12.0));
        assert!((text_width("0000", 10.0) - 4.0 * 0.57 * 10.5).abs() < 1e-9);
        assert_eq!(text_width("", 12.0), 0.0);
    }
}
