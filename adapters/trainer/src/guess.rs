//! Guesses of the types of a model's layers.

use std::collections::{HashMap, HashSet};

use crate::layers::{Layer, Parameter};
use crate::version::Version;

/// Words in names of norms with a bias that are no LayerNorm.
const OTHER_NORMS: &[&str] = &[
    "rms",
    "rmsnorm",
    "bn",
    "batch",
    "batchnorm",
    "group",
    "groupnorm",
    "normalization",
    "identity",
];
/// Last words of names of embedding tables that do not contain "embed".
const TABLES: &[&str] = &["wte", "wpe", "shared", "emb", "codebook", "token", "tokens"];
/// Words anywhere in names of such tables.
const TABLE_WORDS: &[&str] = &["relative", "reference", "queries", "feat"];
/// Words for matrices that are applied to embeddings.
const USES: &[&str] = &[
    "proj",
    "projs",
    "projection",
    "projections",
    "projector",
    "project",
    "dense",
    "patch",
    "mapping",
    "transformation",
    "unembed",
    "out",
];
/// Routers of experts, which have layer types of their own since 5.
const ROUTERS: &[&str] = &["gate", "router"];
/// Other matrices in layers with types of their own.
const OWN_TYPES: &[&str] = &["objective"];

impl Parameter {
    /// Guesses the types of a model's layers from the names and shapes of all its parameters, in
    /// any order.
    ///
    /// It uses words in names; whether a weight has a bias (an embedding and most RMSNorms have
    /// none, a LayerNorm has one); the layer before a norm whose name is a number; and whether
    /// matrices with a bias are transposed, as those of GPT-2's `Conv1D`. Of the 599 architectures
    /// of Transformers 5.23 that can be built from their defaults, the guess is wrong for some
    /// parameter of some model in 15 for weight decay, in 7 for linear layers and in 6 for
    /// embeddings. `version` matters for mixtures of experts: before 5 most of their routers were
    /// linear layers.
    ///
    /// ```
    /// use bitstep_trainer::{Layer, Parameter, Version};
    /// let model: [(&str, &[usize]); 5] = [
    ///     ("wte.weight", &[50, 8]),
    ///     ("h.0.ln_1.weight", &[8]),
    ///     ("h.0.ln_1.bias", &[8]),
    ///     ("h.0.attn.c_attn.weight", &[8, 24]),
    ///     ("h.0.attn.c_attn.bias", &[24]),
    /// ];
    /// let layers = Parameter::guess(model, Version::default()).into_iter().map(|p| p.layer);
    /// use Layer::{Embedding, LayerNorm, Other};
    /// assert!(layers.eq([Embedding, LayerNorm, LayerNorm, Other, Other]));
    /// ```
    #[must_use]
    pub fn guess<'a>(
        named: impl IntoIterator<Item = (&'a str, &'a [usize])>,
        version: Version,
    ) -> Vec<Parameter> {
        let named: Vec<_> = named.into_iter().collect();
        let model = Model::new(&named, version);
        named.iter().map(|(name, shape)| Parameter::of(name, shape, model.layer(name))).collect()
    }

    /// Guesses the layer type from one name and shape alone, which is less reliable.
    #[must_use]
    pub fn new(name: &str, shape: &[usize]) -> Parameter {
        let model = Model::new(&[(name, shape)], Version::default());
        Parameter::of(name, shape, model.layer(name))
    }
}

/// All parameters by name.
struct Model<'a> {
    shapes: HashMap<String, &'a [usize]>,
    /// The last parts of the names of layers whose matrices have the inputs first.
    transposed: HashSet<String>,
    version: Version,
}

impl<'a> Model<'a> {
    fn new(named: &[(&'a str, &'a [usize])], version: Version) -> Self {
        let shapes = named.iter().map(|(name, shape)| (name.to_lowercase(), *shape)).collect();
        let mut model = Model { shapes, transposed: HashSet::new(), version };
        let transposed = model.shapes.keys().filter_map(|name| {
            let module = name.strip_suffix(".weight")?;
            let (weight, bias) = (model.shape(module, "weight")?, model.shape(module, "bias")?);
            let &[inputs, outputs] = weight else { return None };
            (inputs != outputs && bias == [outputs]).then(|| last(module).to_owned())
        });
        model.transposed = transposed.collect();
        model
    }

    fn shape(&self, module: &str, leaf: &str) -> Option<&'a [usize]> {
        self.shapes.get(&format!("{module}.{leaf}")).copied()
    }

    fn layer(&self, name: &str) -> Layer {
        let name = name.to_lowercase();
        let Some((module, leaf)) = name.rsplit_once('.') else { return Layer::Other };
        let Some(weight) = self.shape(module, "weight") else { return Layer::Other };
        let has_bias = self.shape(module, "bias").is_some();
        if leaf != "weight" && leaf != "bias" {
            return Layer::Other;
        }
        match weight.len() {
            1 if self.is_layer_norm(module, has_bias) => Layer::LayerNorm,
            2 => self.of_matrix(module, has_bias),
            _ => Layer::Other,
        }
    }

    fn is_layer_norm(&self, module: &str, has_bias: bool) -> bool {
        let words = words(module);
        let has = |word: &str| words.contains(&word);
        if !has_bias {
            return has("layernorm") || (has("layer") && has("norm"));
        }
        if OTHER_NORMS.iter().any(|word| has(word)) {
            return false;
        }
        // In a numbered sequence, a norm after a convolution is no LayerNorm.
        let (sequence, number) = module.rsplit_once('.').unwrap_or(("", module));
        let Ok(number) = number.parse::<u64>() else { return true };
        let before = (1..=2)
            .filter_map(|i| self.shape(&format!("{sequence}.{}", number.checked_sub(i)?), "weight"))
            .find(|shape| shape.len() > 1);
        before.is_none_or(|shape| shape.len() == 2)
    }

    fn of_matrix(&self, module: &str, has_bias: bool) -> Layer {
        let (words, last) = (words(module), last(module));
        let has_one = |list: &[&str]| words.iter().any(|word| list.contains(word));
        let is_router = ROUTERS.contains(&last) && self.version >= Version::V5_23;
        if OWN_TYPES.contains(&last) {
            return Layer::Other;
        }
        if has_bias {
            let own = self.transposed.contains(last) || (is_router && last == "router");
            return if own { Layer::Other } else { Layer::Linear };
        }
        if is_router {
            return Layer::Other;
        }
        let is_table = if last == "query" {
            // The query of an attention has a key beside it.
            let around = module.strip_suffix("query").unwrap_or(module);
            !self.shapes.contains_key(&format!("{around}key.weight"))
        } else {
            last == "w"
                || words.last().is_some_and(|word| TABLES.contains(word))
                || words.iter().any(|word| word.contains("embed"))
                || has_one(TABLE_WORDS)
        };
        if is_table && !has_one(USES) { Layer::Embedding } else { Layer::Linear }
    }
}

fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// The words of a layer's own name or, if that is a number, of the innermost enclosing module with words.
fn words(module: &str) -> Vec<&str> {
    fn split(part: &str) -> Vec<&str> {
        let words = part.split(|c: char| c == '_' || c.is_ascii_digit());
        words.filter(|word| !word.is_empty()).collect()
    }
    module.rsplit('.').map(split).find(|words| !words.is_empty()).unwrap_or_default()
}
