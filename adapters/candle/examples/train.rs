//! Trains a small network to classify digits, with any optimizer and any schedule.
//!
//! ```text
//! cargo run --release -p bitstep-candle --example train -- --optim adamw_torch --schedule cosine
//! cargo run --release -p bitstep-candle --example train -- --compare adamw_torch,lion_32bit,muon
//! ```

use std::path::{Path, PathBuf};

use bitstep::hyper::Args;
use bitstep_candle::{Outcome, Training, named_vars};
use bitstep_trainer::Arguments;
use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Linear, VarBuilder, VarMap};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;

/// Train a digit classifier and draw its loss.
#[derive(Parser)]
struct Cli {
    /// An optimizer's name in Transformers, `NAME` or `NAME:TYPE` with a type for the weights
    #[arg(long, default_value = "adamw_torch")]
    optim: String,
    /// Its arguments, as in Transformers: `momentum=0.9, nesterov=True`
    #[arg(long, default_value = "")]
    optim_args: String,
    /// Optimizers to draw in one plot, instead of --optim
    #[arg(long, value_delimiter = ',')]
    compare: Vec<String>,
    /// A schedule's name in Transformers (`lr_scheduler_type`)
    #[arg(long, default_value = "linear")]
    schedule: String,
    /// The schedule's own arguments: `min_lr_rate=0.1`
    #[arg(long, default_value = "")]
    schedule_args: String,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Weight decay
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// Warm-up steps; below 1, a fraction of all steps
    #[arg(long, default_value_t = 0.05)]
    warmup: f64,
    /// Number of steps
    #[arg(long, default_value_t = 600)]
    steps: usize,
    /// Images per step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Norm that gradients are clipped to; 0 for none
    #[arg(long, default_value_t = 1.0)]
    max_grad_norm: f64,
    /// Type of the weights
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Weights,
    /// File for the plot
    #[arg(long, default_value = "loss.svg")]
    plot: PathBuf,
    /// A `TrainingArguments` file of Transformers, instead of the arguments above
    #[arg(long)]
    arguments: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Weights {
    F32,
    Bf16,
    F16,
}

impl Weights {
    fn dtype(self) -> DType {
        match self {
            Weights::F32 => DType::F32,
            Weights::Bf16 => DType::BF16,
            Weights::F16 => DType::F16,
        }
    }
}

/// A network of three layers over 8 × 8 pixels.
struct Model {
    map: VarMap,
    layers: [Linear; 3],
}

impl Model {
    fn new(dtype: DType) -> Result<Model> {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, dtype, &Device::Cpu);
        let layer = |i: usize, from, to| candle_nn::linear(from, to, vb.pp(format!("layer{i}")));
        let layers = [layer(0, 64, 128)?, layer(1, 128, 64)?, layer(2, 64, 10)?];
        // candle's random numbers on the CPU can't be seeded, and runs should be repeatable.
        let mut random = Random(1);
        for (_, var) in named_vars(&map) {
            let fan_in = var.dims().last().copied().unwrap_or(1) as f64;
            let scale = if var.rank() > 1 { (3.0 / fan_in).sqrt() } else { 0.0 };
            let values: Vec<f32> = (0..var.elem_count())
                .map(|_| (random.uniform() * 2.0 - 1.0) * scale)
                .map(|x| x as f32)
                .collect();
            let values = Tensor::from_vec(values, var.shape(), &Device::Cpu)?;
            var.set(&values.to_dtype(dtype)?)?;
        }
        Ok(Model { map, layers })
    }

    fn vars(&self) -> Vec<(String, Var)> {
        named_vars(&self.map)
    }

    fn loss(&self, images: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut x = images.to_dtype(self.layers[0].weight().dtype())?;
        for layer in &self.layers[..2] {
            x = layer.forward(&x)?.gelu()?;
        }
        let logits = self.layers[2].forward(&x)?.to_dtype(DType::F32)?;
        Ok((candle_nn::loss::cross_entropy(&logits, labels)?, logits))
    }
}

/// A pseudo-random generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

struct Digits {
    train: (Tensor, Tensor),
    test: (Tensor, Tensor),
}

impl Digits {
    fn read() -> Result<Digits> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.safetensors");
        let all = candle_core::safetensors::load(path, &Device::Cpu)?;
        let images = (all["images"].to_dtype(DType::F32)? / 16.0)?;
        let labels = all["labels"].to_dtype(DType::U32)?;
        let part = |from, len| {
            Ok::<_, candle_core::Error>((
                images.narrow(0, from, len)?,
                labels.narrow(0, from, len)?,
            ))
        };
        Ok(Digits { train: part(0, 1500)?, test: part(1500, 297)? })
    }
}

/// The results of a run.
struct Curve {
    name: String,
    losses: Vec<f64>,
    /// Mean loss and accuracy on the training images, and on the test images.
    train: (f64, f64),
    test: (f64, f64),
}

fn arguments(cli: &Cli, optim: &str) -> std::result::Result<Arguments, Box<dyn std::error::Error>> {
    if let Some(path) = &cli.arguments {
        return Ok(Arguments::read(path)?);
    }
    let mut args = Arguments::default();
    let t = &mut args.training;
    t.optim = optim.into();
    t.optim_args = cli.optim_args.clone();
    t.learning_rate = cli.lr;
    t.weight_decay = cli.weight_decay;
    t.warmup_steps = cli.warmup;
    t.lr_scheduler_type = cli.schedule.clone();
    t.lr_scheduler_kwargs = Args::parse(&cli.schedule_args)?;
    t.max_grad_norm = cli.max_grad_norm;
    args.optim_target_modules = Some(bitstep_trainer::Targets::AllLinear);
    Ok(args)
}

fn train(
    cli: &Cli,
    optim: &str,
    dtype: DType,
    data: &Digits,
) -> std::result::Result<Curve, Box<dyn std::error::Error>> {
    let model = Model::new(dtype)?;
    let args = arguments(cli, optim)?;
    let mut training = Training::new(&args, model.vars(), Some(cli.steps as u64))?;
    let bar = ProgressBar::new(cli.steps as u64);
    bar.set_style(ProgressStyle::with_template("{prefix:>24} {wide_bar} {pos}/{len} {msg}")?);
    let name = format!("{} {}", args.training.optim, dtype.as_str());
    bar.set_prefix(name.clone());

    let (images, labels) = &data.train;
    let count = images.dim(0)?;
    let mut random = Random(2);
    let mut losses = Vec::with_capacity(cli.steps);
    while losses.len() < cli.steps {
        let batch: Vec<u32> =
            (0..cli.batch).map(|_| (random.next() % count as u64) as u32).collect();
        let batch = Tensor::new(batch, &Device::Cpu)?;
        let (loss, _) =
            model.loss(&images.index_select(&batch, 0)?, &labels.index_select(&batch, 0)?)?;
        if training.backward(&loss)? == Outcome::Accumulated {
            continue;
        }
        let loss = f64::from(loss.to_scalar::<f32>()?);
        training.metric(loss)?;
        losses.push(loss);
        bar.set_message(format!("loss {loss:.4}, rate {:.2e}", training.rates()[0]));
        bar.inc(1);
    }
    bar.finish();
    training.optimizer_mut().eval()?;
    let judge = |(images, labels): &(Tensor, Tensor)| -> Result<(f64, f64)> {
        let (loss, logits) = model.loss(images, labels)?;
        let right = logits.argmax(D::Minus1)?.eq(labels)?.to_dtype(DType::F32)?.mean_all()?;
        Ok((loss.to_scalar::<f32>()?.into(), right.to_scalar::<f32>()?.into()))
    };
    Ok(Curve { name, losses, train: judge(&data.train)?, test: judge(&data.test)? })
}

fn plot(curves: &[Curve], path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    // Smoothed, as the losses of single batches are noisy.
    let smooth = |losses: &[f64]| -> Vec<(f64, f64)> {
        let mut mean = None;
        let each = losses.iter().enumerate().map(|(t, &x)| {
            let next = mean.map_or(x, |m: f64| m + (x - m) * 0.05);
            mean = Some(next);
            (t as f64 + 1.0, next.max(1e-6))
        });
        each.collect()
    };
    let lines: Vec<_> = curves.iter().map(|c| smooth(&c.losses)).collect();
    let all = || lines.iter().flatten().map(|p| p.1).filter(|x| x.is_finite());
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(1e-6, f64::max));
    let steps = curves.iter().map(|c| c.losses.len()).max().unwrap_or(1) as f64;

    let area = SVGBackend::new(path, (900, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption("Loss over steps", ("sans-serif", 22))
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..steps, (low * 0.9..high * 1.1).log_scale())?;
    chart.configure_mesh().x_desc("step").y_desc("training loss").draw()?;
    for (i, (curve, line)) in curves.iter().zip(lines).enumerate() {
        let color = Palette99::pick(i).to_rgba();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(format!("{}: {:.4}", curve.name, curve.train.0))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let cli = Cli::parse();
    let data = Digits::read()?;
    let names = if cli.compare.is_empty() { vec![cli.optim.clone()] } else { cli.compare.clone() };
    let mut curves = Vec::new();
    for name in &names {
        let (optim, dtype) = match name.split_once(':') {
            Some((optim, dtype)) => (optim, Weights::from_str(dtype, true)?),
            None => (name.as_str(), cli.dtype),
        };
        curves.push(train(&cli, optim, dtype.dtype(), &data)?);
    }
    println!("{:32} {:>12} {:>9} {:>12} {:>9}", "", "train loss", "right", "test loss", "right");
    for c in &curves {
        let ((loss, right), (test_loss, test_right)) = (c.train, c.test);
        println!(
            "{:32} {loss:12.6} {:8.2}% {test_loss:12.6} {:8.2}%",
            c.name,
            right * 100.0,
            test_right * 100.0
        );
    }
    plot(&curves, &cli.plot)?;
    println!("{}", cli.plot.display());
    Ok(())
}
