//! The machine's memory bandwidth with the streams of an AdamW step: four are read, three of them written.
//!
//! ```text
//! rustc -O -C target-cpu=native bandwidth.rs && ./bandwidth THREADS ELEMENTS
//! ```
//! Each line on standard input makes one pass over four arrays of `f32`; its time in
//! seconds is printed on standard output. Out of cache, an optimizer step takes at least that long.

use std::io::{BufRead, Write};
use std::time::Instant;

fn pass(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
        *p += g;
        *m += g;
        *v += g;
    }
}

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [threads, n] = args[..] else { panic!("usage: bandwidth THREADS ELEMENTS") };
    let (mut p, mut m, mut v, g) = (vec![1.0; n], vec![1.0; n], vec![1.0; n], vec![1e-3; n]);
    let part = n.div_ceil(threads.max(1)).max(1);
    let mut answers = std::io::stdout().lock();
    for _ in std::io::stdin().lock().lines() {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let parts = p
                .chunks_mut(part)
                .zip(m.chunks_mut(part))
                .zip(v.chunks_mut(part))
                .zip(g.chunks(part));
            for (((p, m), v), g) in parts {
                if threads == 1 {
                    pass(p, m, v, g);
                } else {
                    scope.spawn(|| pass(p, m, v, g));
                }
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        assert!(p.first().is_none_or(|x| *x > 1.0));
        writeln!(answers, "{seconds}").and_then(|()| answers.flush()).expect("a reader");
    }
}
