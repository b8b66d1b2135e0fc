//! Charts as inline SVG: no scripts, no style attributes, colours by class, so that a page with a strict content policy
//! can show them in light and dark. Pure; called by `html`.

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 10.0;
/// How many tick labels fit below the bars.
const LABELS: usize = 9;

/// One colour of a stacked chart.
pub(super) struct Series {
    /// What it is.
    pub(super) name: String,
    /// One value per bar, not negative.
    pub(super) values: Vec<f64>,
}

/// Stacked bars over a common axis, with a legend. `labels`: one per bar; `show` prints a value.
pub(super) fn stacked(title: &str, labels: &[String], series: &[Series], show: fn(f64) -> String) -> String {
    let bars = labels.len();
    let total = |bar: usize| series.iter().filter_map(|series| series.values.get(bar)).sum::<f64>();
    let highest = (0..bars).map(total).fold(0.0, f64::max);
    if bars == 0 || highest <= 0.0 {
        return "<p class=\"none\">Nothing to draw: no known amounts.</p>".to_owned();
    }
    let (step, top) = scale(highest);
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top);
    let slot = (WIDTH - LEFT) / count(bars);
    let mut svg = format!(
        "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\"><title>{}</title>\n",
        escape(title)
    );
    let mut line = 0.0;
    while line <= top * 1.0001 {
        let at = y(line);
        push(
            &mut svg,
            format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"),
        );
        push(
            &mut svg,
            format_args!(
                "<text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                LEFT - 8.0,
                at + 4.0,
                show(line)
            ),
        );
        line += step;
    }
    let every = bars.div_ceil(LABELS).max(1);
    for (bar, label) in labels.iter().enumerate() {
        let x = LEFT + slot * count(bar) + slot * 0.1;
        let mut base = 0.0;
        push(&mut svg, format_args!("<g><title>{}: {}</title>", escape(label), show(total(bar))));
        for (colour, series) in series.iter().enumerate() {
            let value = series.values.get(bar).copied().unwrap_or(0.0);
            if value <= 0.0 {
                continue;
            }
            let (high, low) = (y(base + value), y(base));
            base += value;
            push(
                &mut svg,
                format_args!(
                    "<rect class=\"s{colour}\" x=\"{x:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    slot * 0.8,
                    (low - high).max(0.2)
                ),
            );
        }
        svg.push_str("</g>\n");
        // Half a label would stand beyond the edge.
        if bar.is_multiple_of(every) && x + slot * 0.4 + 40.0 < WIDTH || bars <= LABELS {
            push(
                &mut svg,
                format_args!(
                    "<text class=\"tick mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                    x + slot * 0.4,
                    HEIGHT - 8.0,
                    escape(label)
                ),
            );
        }
    }
    svg.push_str("</svg>\n");
    if series.len() > 1 {
        legend(&mut svg, series.iter().map(|series| series.name.as_str()));
    }
    svg
}

/// One bar cut into parts, each with its name, its share and its amount below.
pub(super) fn shares(title: &str, parts: &[(&'static str, &str, f64)], show: fn(f64) -> String) -> String {
    let all: f64 = parts.iter().map(|(_, _, value)| value).sum();
    if all <= 0.0 {
        return "<p class=\"none\">Nothing to draw: no known amounts.</p>".to_owned();
    }
    let mut svg = format!(
        "<svg class=\"chart shares\" role=\"img\" viewBox=\"0 0 {WIDTH} 44\"><title>{}</title>\n",
        escape(title)
    );
    let mut x = 0.0;
    for (class, name, value) in parts.iter().filter(|(_, _, value)| *value > 0.0) {
        let width = WIDTH * value / all;
        push(
            &mut svg,
            format_args!(
                "<g><title>{}: {}</title><rect class=\"{class}\" x=\"{x:.1}\" y=\"4\" width=\"{:.1}\" height=\"36\"/></g>\n",
                escape(name),
                show(*value),
                (width - 2.0).max(1.0)
            ),
        );
        x += width;
    }
    svg.push_str("</svg>\n<ul class=\"legend\">");
    for (class, name, value) in parts {
        push(
            &mut svg,
            format_args!(
                "<li><i class=\"{class}\"></i>{} <b>{:.0} %</b> {}</li>",
                escape(name),
                100.0 * value / all,
                show(*value)
            ),
        );
    }
    svg.push_str("</ul>\n");
    svg
}

/// Horizontal bars to compare a few amounts.
pub(super) fn compare(title: &str, rows: &[(&'static str, &str, f64)], show: fn(f64) -> String) -> String {
    let most = rows.iter().map(|(_, _, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return "<p class=\"none\">Nothing to draw: no known amounts.</p>".to_owned();
    }
    let height = 40.0 * count(rows.len());
    let mut svg = format!(
        "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 {WIDTH} {height}\"><title>{}</title>\n",
        escape(title)
    );
    for (row, (class, name, value)) in rows.iter().enumerate() {
        let y = 40.0 * count(row);
        let width = (WIDTH - 360.0) * value.max(0.0) / most;
        push(&mut svg, format_args!("<text class=\"name\" x=\"0\" y=\"{:.1}\">{}</text>", y + 25.0, escape(name)));
        push(
            &mut svg,
            format_args!(
                "<rect class=\"{class}\" x=\"220\" y=\"{:.1}\" width=\"{:.1}\" height=\"28\"/>",
                y + 6.0,
                width.max(1.0)
            ),
        );
        push(
            &mut svg,
            format_args!(
                "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                230.0 + width,
                y + 25.0,
                show(*value)
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Text inside HTML or SVG, quotes included.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

fn legend<'a>(svg: &mut String, names: impl Iterator<Item = &'a str>) {
    svg.push_str("<ul class=\"legend\">");
    for (colour, name) in names.enumerate() {
        push(svg, format_args!("<li><i class=\"s{colour}\"></i>{}</li>", escape(name)));
    }
    svg.push_str("</ul>\n");
}

/// A step of 1, 2 or 5 times a power of ten that gives at most five lines, and the end of the axis.
fn scale(highest: f64) -> (f64, f64) {
    let mut step = 10_f64.powf(highest.log10().floor() - 1.0);
    for factor in [2.0, 2.5, 2.0, 2.0, 2.5, 2.0] {
        if highest / step <= 5.0 {
            break;
        }
        step *= factor;
    }
    (step, (highest / step).ceil() * step)
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.push_str(&piece.to_string());
}

#[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: f64) -> String {
        format!("{value}")
    }

    fn chart(values: &[f64]) -> String {
        let labels: Vec<String> = (0..values.len()).map(|bar| format!("<{bar}>")).collect();
        stacked("a & b", &labels, &[Series { name: "x".to_owned(), values: values.to_vec() }], plain)
    }

    #[test]
    fn bars_have_the_height_of_their_value() {
        let svg = chart(&[1.0, 2.0, 0.0]);
        assert_eq!(svg.matches("<rect").count(), 2, "{svg}");
        let heights: Vec<f64> =
            svg.split("height=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        assert_eq!(heights.len(), 2);
        assert!((heights[1] / heights[0] - 2.0).abs() < 0.01, "{heights:?}");
    }

    #[test]
    fn nothing_from_a_log_is_markup() {
        let svg = chart(&[1.0]);
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;0&gt;") && !svg.contains("<0>"), "{svg}");
        assert_eq!(escape("<a href='x'>\u{1b}\"&"), "&lt;a href=&#39;x&#39;&gt; &quot;&amp;");
    }

    #[test]
    fn without_amounts_there_is_no_chart() {
        for nothing in
            [chart(&[]), chart(&[0.0, 0.0]), shares("x", &[("a", "b", 0.0)], plain), compare("x", &[], plain)]
        {
            assert!(!nothing.contains("<svg"), "{nothing}");
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (highest, top) in [(1.0, 1.0), (0.037, 0.04), (99.0, 100.0), (101.0, 150.0), (4.2, 5.0), (1234.0, 1500.0)] {
            let (step, end) = scale(highest);
            assert!((end - top).abs() < top * 1e-9 && highest / step <= 5.0, "{highest}: {step} {end}");
        }
    }
}
