//! Writes what was found: tables, plots, a progress bar.

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use std::io::{IsTerminal, Write};

/// A table with a header.
pub fn table(header: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// Prints to the standard output; who closed it wants no more.
pub fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(anyhow::Error::from)
}

/// A progress bar on the standard error, where that is a terminal.
pub struct Progress {
    name: &'static str,
    done: usize,
    all: usize,
    shown: bool,
}

impl Progress {
    /// `all` steps are to come.
    pub fn new(name: &'static str, all: usize) -> Self {
        Self {
            name,
            done: 0,
            all,
            shown: std::io::stderr().is_terminal(),
        }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        if !self.shown {
            return;
        }
        let filled = self.done * 40 / self.all.max(1);
        let bar: String = (0..40)
            .map(|at| if at < filled { '█' } else { '·' })
            .collect();
        let end = if self.done >= self.all { "\n" } else { "" };
        // A bar that cannot be shown is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "\r{} {bar} {}/{}{end}",
            self.name,
            self.done,
            self.all
        );
    }
}

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// The points, ordered by their first coordinate.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 6] = [
    "#0b6e4f", "#c8553d", "#6c757d", "#1d3557", "#e09f3e", "#5f0f40",
];

/// A plot of lines, with axes from the least to the greatest value.
pub fn svg(title: &str, x_name: &str, y_name: &str, series: &[Series]) -> String {
    let all = || {
        series
            .iter()
            .flat_map(|series| series.points.iter().copied())
    };
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (left, right) = range(&mut all().map(|point| point.0));
    let (bottom, top) = range(&mut all().map(|point| point.1));
    let x =
        |value: f64| MARGIN + (value - left) / (right - left).max(1e-9) * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| {
        HEIGHT - MARGIN - (value - bottom) / (top - bottom).max(1e-9) * (HEIGHT - 2.0 * MARGIN)
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"24\" text-anchor=\"middle\" font-size=\"15\">{title}</text>\n",
        WIDTH / 2.0
    );
    for step in 0..=5 {
        let part = f64::from(step) / 5.0;
        let (across, up) = (left + (right - left) * part, bottom + (top - bottom) * part);
        text.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{across:.4}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{up:.4}</text>\n\
             <line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\n",
            x(across),
            HEIGHT - MARGIN + 18.0,
            MARGIN - 6.0,
            y(up) + 4.0,
            WIDTH - MARGIN,
            y(up),
            y(up),
        ));
    }
    for ((series, colour), row) in series.iter().zip(COLOURS.iter().cycle()).zip(0u32..) {
        let points: Vec<_> = series
            .points
            .iter()
            .map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b)))
            .collect();
        let at = MARGIN + 16.0 * f64::from(row);
        text.push_str(&format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
             <text x=\"{}\" y=\"{at}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>\n",
            points.join(" "),
            WIDTH - MARGIN - 6.0,
            series.name,
        ));
    }
    text.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text>\n\
         <text x=\"18\" y=\"{}\" transform=\"rotate(-90 18 {})\" text-anchor=\"middle\">{y_name}</text>\n</svg>\n",
        WIDTH / 2.0,
        HEIGHT - 14.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(series: &[Series], lines: usize) {
        let plot = svg("t", "x", "y", series);
        assert_eq!(plot.matches("<polyline").count(), lines);
        assert!(
            plot.starts_with("<svg") && plot.ends_with("</svg>\n") && !plot.contains("NaN"),
            "{plot}"
        );
    }

    #[test]
    fn a_plot_has_a_line_for_each_series_even_a_flat_one() {
        let flat = Series {
            name: "flat".to_owned(),
            points: vec![(0.0, 1.0), (1.0, 1.0)],
        };
        check(std::slice::from_ref(&flat), 1);
        check(
            &[
                flat,
                Series {
                    name: "up".to_owned(),
                    points: vec![(0.0, 0.0), (5.0, 9.0)],
                },
            ],
            2,
        );
    }
}
