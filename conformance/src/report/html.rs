//! `--report`: one self-contained page, without scripts, external fonts or images.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::judge::check::{Outcome, Report};
use crate::report::text::plain;
use crate::report::{Totals, figure, groups, rows};

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}\
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e3e6ea}\
th{position:sticky;top:0;background:#fff}td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}\
.fail,.error{color:#b3261e;font-weight:600}.unsupported,.empty{color:#8a5a00}.pass{color:#1d6f42}\
details{border-bottom:1px solid #e3e6ea;padding:.3rem 0}summary{cursor:pointer;font-family:ui-monospace,monospace}\
svg{max-width:100%;height:auto}pre{white-space:pre-wrap;background:#f5f6f8;padding:.6rem;border-radius:4px}a{color:inherit}";

/// The colours of the curves, used cyclically.
const COLOURS: [&str; 6] = ["#0b6fa4", "#c2571a", "#2e8540", "#8e44ad", "#a0522d", "#5b6770"];

/// The page.
#[must_use]
pub fn page(reports: &[Report]) -> String {
    let mut out = String::new();
    let t = Totals::of(reports);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>bitstep conformance</title><style>{STYLE}</style>\
         <h1>bitstep conformance</h1><p>{} checks: <span class=pass>{} passed</span>, \
         <span class=fail>{} failed</span>, <span class=unsupported>{} unsupported</span>, \
         <span class=error>{} in error</span>, <span class=empty>{} empty</span>; {} numbers compared, {} off, \
         {} zeros of the other sign.</p>\
         <p>Errors are counted in units in the last place at scale: |got − want| divided by the spacing of \
         the type at max(|want|, |value before the step|). “Worst” is the error that takes up most of its bound.</p>",
        reports.len(),
        t.pass,
        t.fail,
        t.unsupported,
        t.error,
        t.empty,
        t.compared,
        t.off,
        t.zeros
    );
    matrix(&mut out, reports);
    summary(&mut out, reports);
    failures(&mut out, reports);
    let mut name = String::new();
    for r in reports {
        let heading =
            if r.name.is_empty() { "no case".into() } else { format!("{}/{}", r.kind, r.name) };
        if heading != name {
            let _ = write!(out, "<h2 id='{0}'>{0}</h2>", escape(&heading));
            name = heading;
        }
        case(&mut out, r);
    }
    out.push_str("</html>\n");
    out
}

/// The anchor of a check's details.
fn anchor(r: &Report) -> String {
    escape(&format!("{} {} {}", r.case, r.backend, r.mode.name()))
}

/// A table of names by backend and type: the error that is the largest share of its bound, with a link to its check.
fn matrix(out: &mut String, reports: &[Report]) {
    let mut cells = BTreeMap::<_, BTreeMap<_, &Report>>::new();
    let mut columns = BTreeSet::new();
    let share = |r: &Report| match (r.ulp, r.bound) {
        (Some(ulp), Some(bound)) if ulp > 0.0 => ulp / bound,
        _ => 0.0,
    };
    let grade = |r: &Report| match r.outcome {
        Outcome::Pass => 0,
        Outcome::Empty => 1,
        Outcome::Unsupported => 2,
        Outcome::Fail => 3,
        Outcome::Error => 4,
    };
    for r in reports.iter().filter(|r| !r.name.is_empty()) {
        let column = (r.backend.as_str(), r.dtype.as_str());
        columns.insert(column);
        let cell = cells.entry((&r.kind, &r.name)).or_default().entry(column).or_insert(r);
        let worse = grade(r).cmp(&grade(cell)).then(share(r).total_cmp(&share(cell)));
        if worse.is_gt() {
            *cell = r;
        }
    }
    out.push_str("<h2>Worst ULP</h2><table id=matrix><tr><th>name");
    for (backend, dtype) in &columns {
        let _ = write!(out, "<th>{}<br>{}", escape(backend), escape(dtype));
    }
    for ((kind, name), row) in &cells {
        let _ = write!(out, "<tr><td><a href='#{0}'>{0}</a>", escape(&format!("{kind}/{name}")));
        for column in &columns {
            let Some(r) = row.get(column) else {
                out.push_str("<td>");
                continue;
            };
            let text = r.ulp.map_or_else(|| r.outcome.name().to_owned(), figure);
            let _ =
                write!(out, "<td class={}><a href='#{}'>{text}</a>", r.outcome.name(), anchor(r));
        }
    }
    out.push_str("</table><h2>Checks</h2>");
}

fn summary(out: &mut String, reports: &[Report]) {
    out.push_str(
        "<table><tr><th>name<th>backend<th>mode<th>cases<th>passed<th>failed<th>unsupported\
         <th>in error<th>empty<th>numbers<th>zeros of the other sign<th>worst ULP at scale<th>bound<th>looks like",
    );
    for r in rows(reports) {
        let t = r.totals;
        let (ulp, bound) =
            r.worst.map_or(("–".into(), "–".into()), |(u, b)| (figure(u), figure(b)));
        let class = |n: usize, class: &str| {
            if n == 0 { "<td>0".to_owned() } else { format!("<td class={class}>{n}") }
        };
        let anchor = if r.what.starts_with('(') { "no case" } else { &r.what };
        let _ = write!(
            out,
            "<tr><td><a href='#{}'>{}</a><td>{}<td>{}<td>{}<td>{}{}{}{}{}<td>{}{}<td>{ulp}<td>{bound}<td>{}",
            escape(anchor),
            escape(&r.what),
            escape(&r.backend),
            r.mode.name(),
            t.checks(),
            t.pass,
            class(t.fail, "fail"),
            class(t.unsupported, "unsupported"),
            class(t.error, "error"),
            class(t.empty, "empty"),
            t.compared,
            class(t.zeros, "empty"),
            escape(r.diagnosis.as_deref().unwrap_or("")),
        );
    }
    out.push_str("</table>");
}

/// The failures of one diagnosis together.
fn failures(out: &mut String, reports: &[Report]) {
    let groups = groups::of(reports);
    if groups.is_empty() {
        return;
    }
    out.push_str(
        "<h2 id=failures>Failures by diagnosis</h2><table><tr><th>looks like<th>name<th>backend\
         <th>checks<th>where<th>only",
    );
    for g in &groups {
        let _ = write!(
            out,
            "<tr><td class=fail>{}<td><a href='#{}'>{}</a><td>{}<td>{}<td>{}<td>{}",
            escape(g.diagnosis.unwrap_or(groups::UNKNOWN)),
            escape(&g.what),
            escape(&g.what),
            escape(g.backend),
            g.checks.len(),
            escape(&g.parts()),
            escape(&g.only.join(", ")),
        );
    }
    out.push_str("</table>");
    for g in &groups {
        let _ = write!(
            out,
            "<details><summary>{}: {} ({})</summary><p>",
            escape(g.diagnosis.unwrap_or(groups::UNKNOWN)),
            escape(&g.what),
            escape(g.backend)
        );
        for r in &g.checks {
            let (case, mode) = (escape(&r.case), r.mode.name());
            let _ = write!(out, "<a href='#{}'>{case}</a> ({mode})<br>", anchor(r));
        }
        out.push_str("</p></details>\n");
    }
}

fn case(out: &mut String, r: &Report) {
    let open = if matches!(r.outcome, Outcome::Fail | Outcome::Error) { " open" } else { "" };
    let figures = match (r.ulp, r.bound) {
        (Some(ulp), Some(bound)) => format!("{} of {} ULP", figure(ulp), figure(bound)),
        (Some(ulp), None) => format!("{} ULP, not judged", figure(ulp)),
        _ => String::new(),
    };
    let outcome = r.outcome.name();
    let _ = write!(
        out,
        "<details id='{}'{open}><summary><span class={outcome}>{outcome}</span> {} · {} · {} · {} · {figures}\
         </summary><p>{}</p>",
        anchor(r),
        escape(&r.case),
        escape(&r.backend),
        r.mode.name(),
        escape(&r.dtype),
        escape(&r.note),
    );
    if let Some(diagnosis) = &r.diagnosis {
        let _ = write!(out, "<p class=fail>Looks like: {}.</p>", escape(diagnosis));
    }
    let parts = r.off_parts().to_string();
    if r.outcome == Outcome::Fail && !parts.is_empty() {
        let _ = write!(out, "<p>{}.</p>", escape(&parts));
    }
    if r.compared > 0 {
        let _ = write!(
            out,
            "<p>{} numbers compared, {} off, {} zeros of the other sign.</p>",
            r.compared, r.off, r.zeros
        );
    }
    if !r.detail.is_empty() {
        let _ = write!(out, "<pre>{}</pre>", escape(&r.detail));
    }
    plot(out, r);
    out.push_str("</details>\n");
}

/// Plots the worst error of every step, a curve per quantity; the axis is linear up to 1 ULP, logarithmic above.
fn plot(out: &mut String, r: &Report) {
    const W: f64 = 640.0;
    const H: f64 = 180.0;
    const LEFT: f64 = 48.0;
    let steps = r.history.values().map(Vec::len).max().unwrap_or(0);
    if steps < 2 {
        return;
    }
    let lift = |ulp: f64| if ulp <= 1.0 { ulp } else { 1.0 + ulp.min(1e12).log10() };
    let all = r.history.values().flatten().copied();
    let top = lift(all.chain(r.bound).fold(1.0, f64::max)).ceil().max(2.0);
    let x = |t: usize| LEFT + t as f64 / (steps - 1) as f64 * (W - LEFT - 8.0);
    let y = |ulp: f64| 8.0 + (1.0 - lift(ulp) / top) * (H - 28.0);
    let _ = write!(
        out,
        "<svg viewBox='0 0 {W} {}' width={W} role=img aria-label='error over steps'>\
         <g font-size=11 fill='#5b6770' stroke='#e3e6ea'>",
        H + 16.0 * r.history.len().div_ceil(4) as f64
    );
    for tick in 0..=top as i32 {
        let ulp = if tick == 0 { 0.0 } else { 10f64.powi(tick - 1) };
        let y = y(ulp);
        let _ = write!(
            out,
            "<path d='M{LEFT} {y:.1}H{W}'/><text x={} y={:.1} text-anchor=end stroke=none>{}</text>",
            LEFT - 6.0,
            y + 4.0,
            figure(ulp)
        );
    }
    let _ = write!(
        out,
        "<text x={LEFT} y={0} stroke=none>step 0</text><text x={1} y={0} text-anchor=end stroke=none>step {2}</text></g>",
        H - 4.0,
        W - 8.0,
        steps - 1
    );
    for (i, (what, history)) in r.history.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<String> =
            history.iter().enumerate().map(|(t, &u)| format!("{:.1},{:.1}", x(t), y(u))).collect();
        let (cx, cy) = (LEFT + (i % 4) as f64 * 145.0, H + 12.0 + (i / 4) as f64 * 16.0);
        let _ = write!(
            out,
            "<polyline points='{}' fill=none stroke='{colour}' stroke-width=1.5 />\
             <text x={cx} y={cy} font-size=12 fill='{colour}'>{}</text>",
            points.join(" "),
            escape(what)
        );
    }
    out.push_str("</svg>");
}

fn escape(text: &str) -> String {
    plain(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
}
