//! What types a model's layers are likely to have.

use std::collections::{HashMap, HashSet};

use crate::layers::{Layer, Parameter};
use crate::version::Version;

/// Norms that are no LayerNorm, though they have a bias.
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
/// What a table of embeddings is called where nothing in its name says so; the last word counts.
const TABLES: &[&str] = &["wte", "wpe", "shared", "emb", "codebook", "token", "tokens"];
/// The same for words that may stand anywhere.
const TABLE_WORDS: &[&str] = &["relative", "reference", "queries", "feat"];
/// What is done to embeddings by a matrix.
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
/// Matrices in layers of a type of their own, and since when the choice of experts is one.
const ROUTERS: &[&str] = &["gate", "router"];
const OWN_TYPES: &[&str] = &["objective"];

impl Parameter {
    /// Guesses the types of a model's layers from the names and shapes of all its parameters, in
    /// any order.
    ///
    /// Seen are words in names; whether a weight has a bias beside it (an embedding and most
    /// RMSNorms have none, a LayerNorm has one); what goes before a norm that has a number for a
    /// name; and whether matrices that have a bias are transposed, as those of GPT-2's `Conv1D`.
    /// Of the 599 architectures of Transformers 5.23 that can be built from their defaults, the
    /// guess is off, in any parameter of any of their models, in 15 for what decays, in 7 for
    /// what is linear and in 6 for what is an embedding. `version` matters for models of experts:
    /// before 5 most of their routers were linear layers.
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

    /// The same from one name and shape, where less can be seen.
    #[must_use]
    pub fn new(name: &str, shape: &[usize]) -> Parameter {
        let model = Model::new(&[(name, shape)], Version::default());
        Parameter::of(name, shape, model.layer(name))
    }
}

/// All parameters by name.
struct Model<'a> {
    shapes: HashMap<String, &'a [usize]>,
    /// The last parts of the names of layers whose matrix is laid out with its inputs first.
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
        // One of a sequence: after a convolution it is another norm.
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
            // That of an attention has keys to meet.
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

/// The words of a layer's own name, or, if that is but a number, of the nearest around it.
fn words(module: &str) -> Vec<&str> {
    fn split(part: &str) -> Vec<&str> {
        let words = part.split(|c: char| c == '_' || c.is_ascii_digit());
        words.filter(|word| !word.is_empty()).collect()
    }
    module.rsplit('.').map(split).find(|words| !words.is_empty()).unwrap_or_default()
}
