//! Projectors that the core computes itself, whereas `verify` supplies the reference's: random ones are identical
//! in every bit, singular vectors are compared by the angle between subspaces.

use bitstep::lowrank::{LinearAlgebra, PortableLinearAlgebra};
use bitstep_conformance::Core;
use bitstep_conformance::backend::{Backend, Inputs, OptimizerSpec, Run};
use bitstep_conformance::golden::{Case, Data, OptimizerCase};
use bitstep_conformance::suite::{self, CaseFilter};
use bitstep_conformance::tensor::{Dtype, Tensor};

fn cases(glob: &str) -> Vec<Case> {
    let entries =
        suite::read(&[suite::committed()], &CaseFilter::new(Some(glob)).unwrap()).unwrap();
    entries.into_iter().map(|e| e.case.unwrap()).filter(|c| !c.id.contains("/late_")).collect()
}

fn data(case: &Case) -> &OptimizerCase {
    match &case.data {
        Data::Optimizer(data) => data,
        _ => panic!("an optimizer case"),
    }
}

/// A free run without the reference's projectors; `seen` is called after every step.
fn run_alone(case: &Case, mut seen: impl FnMut(usize, &dyn Run)) {
    let data = data(case);
    let mut spec = OptimizerSpec::new(case, data);
    spec.given.iter_mut().for_each(Vec::clear);
    let mut run = Core.optimizer(&spec).unwrap();
    for t in 0..case.steps {
        let mut inputs = Inputs::new(data, t);
        inputs.tensors.iter_mut().for_each(std::collections::BTreeMap::clear);
        run.step(&inputs).unwrap();
        seen(t, &*run);
    }
}

#[test]
fn random_projectors_are_the_references_to_the_bit() {
    let mut compared = 0;
    for case in cases("optimizer/apollo_adamw/*") {
        let data = data(&case);
        run_alone(&case, |t, run| {
            for (i, param) in data.params.iter().enumerate() {
                let group = data.groups.iter().find(|g| g.params.contains(&i)).unwrap();
                let random = group.hyper.get("proj").and_then(|p| p.as_str()) == Some("random");
                let Some((want, _)) = param.given.get("projector").and_then(|g| g.at(t)) else {
                    continue;
                };
                if random {
                    let got = &run.state(i)["projector"];
                    assert!(got.shape == want.shape && got.bytes == want.bytes, "{}", case.id);
                    compared += 1;
                }
            }
        });
    }
    assert!(compared > 500, "{compared}");
}

/// Singular values of a `rows` × `cols` matrix, in descending order.
fn singular_values(grad: &Tensor) -> Vec<f64> {
    let (rows, cols) = (grad.shape[0], grad.shape[1]);
    let (short, long) = (rows.min(cols), rows.max(cols));
    let at = |i: usize, j: usize| grad.get(if rows <= cols { i * cols + j } else { j * cols + i });
    let matrix: Vec<f64> = (0..short * long).map(|n| at(n / long, n % long)).collect();
    let (mut work, mut vectors) = (matrix.clone(), vec![0.0; short * short]);
    let scratch = &mut vec![0.0; PortableLinearAlgebra::scratch(short)];
    PortableLinearAlgebra::truncated_svd([short, long], &mut work, &mut vectors, &mut [], scratch);
    let length = |u: &[f64]| {
        let dot = |j: usize| (0..short).map(|i| u[i] * matrix[i * long + j]).sum::<f64>();
        (0..long).map(|j| dot(j).powi(2)).sum::<f64>().sqrt()
    };
    vectors.chunks(short).map(length).collect()
}

/// The vectors of a projector, along its shorter dimension.
fn vectors(p: &Tensor, rank: usize) -> Vec<Vec<f64>> {
    let (rows, cols) = (p.shape[0], p.shape[1]);
    let as_rows = rows == rank;
    let (count, len) = if as_rows { (rows, cols) } else { (cols, rows) };
    let at = |k: usize, i: usize| p.get(if as_rows { k * cols + i } else { i * cols + k });
    (0..count).map(|k| (0..len).map(|i| at(k, i)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn singular_vectors_span_the_references_subspace() {
    let (mut compared, mut worst) = (0, 0.0f64);
    for case in cases("optimizer/galore_*/*") {
        let data = data(&case);
        run_alone(&case, |t, run| {
            for (i, param) in data.params.iter().enumerate() {
                if param.init.dtype != Dtype::F32 || !param.has_grad[t] {
                    continue;
                }
                for (name, given) in &param.given {
                    let Some((want, true)) = given.at(t) else { continue };
                    let group = data.groups.iter().find(|g| g.params.contains(&i)).unwrap();
                    let rank = group.hyper["rank"].as_u64().unwrap() as usize;
                    let sigma = singular_values(&param.grad.row(t));
                    let rank = rank.min(sigma.len());
                    if rank == 0 {
                        continue; // no vectors
                    }
                    let next = sigma.get(rank).copied().unwrap_or(0.0);
                    // Where singular values are close, or one is zero, the basis is not unique.
                    if sigma[rank - 1] - next < 0.05 * sigma[0] {
                        continue;
                    }
                    let got = vectors(&run.state(i)[name], rank);
                    for v in vectors(&want, rank) {
                        let mut rest = v.clone();
                        for u in &got {
                            let part = dot(u, &v);
                            rest.iter_mut().zip(u).for_each(|(r, u)| *r -= part * u);
                        }
                        worst = worst.max(dot(&rest, &rest).sqrt());
                        compared += 1;
                    }
                    for u in &got {
                        let largest =
                            u.iter().fold(0.0f64, |a, &b| if b.abs() > a.abs() { b } else { a });
                        assert!(largest > 0.0, "{}: {name} at step {t}", case.id);
                    }
                }
            }
        });
    }
    println!("{compared} vectors, worst angle {worst:.1e}");
    assert!(compared > 100 && worst < 1e-5, "{compared} vectors, worst angle {worst:.1e}");
}

/// With one projector throughout, the signs of its vectors cancel out.
#[test]
fn runs_alone_stay_near_the_references() {
    for (glob, bound) in [
        (
            "optimizer/apollo_adamw/{std,mini,right,left,strong,nograd,gap1,growth,rank_max,trainer}_f32",
            1e-5,
        ),
        ("optimizer/galore_{adamw,adafactor}/gap_never_f32", 1e-5),
    ] {
        let cases = cases(glob);
        assert!(cases.len() >= 2, "{glob}");
        for case in cases {
            let data = data(&case);
            run_alone(&case, |t, run| {
                for (i, param) in data.params.iter().enumerate() {
                    let (got, want) = (run.value(i).to_f64s(), param.value.row(t).to_f64s());
                    let scale = want.iter().fold(0.0f64, |a, b| a.max(b.abs()));
                    for (g, w) in got.iter().zip(&want) {
                        let off = (g - w).abs() / scale;
                        assert!(off <= bound, "{}: parameter {i}, step {t}: {off:.1e}", case.id);
                    }
                }
            });
        }
    }
}
