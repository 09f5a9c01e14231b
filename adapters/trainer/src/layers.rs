//! Parameters: their names, shapes and layer types.

use crate::training_arguments::has_weight_decay;
use crate::version::Version;

/// The type of the layer that a parameter belongs to, as far as it matters to Trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// `torch.nn.Linear` or a subclass. GaLore and APOLLO project its `weight`.
    /// GPT-2's `Conv1D`, which multiplies by a matrix too, is none.
    Linear,
    /// `torch.nn.Embedding` or a subclass. Trainer keeps the state of its `weight` in 32 bits, where
    /// that of others has 8.
    Embedding,
    /// `torch.nn.LayerNorm` or a subclass. It has no weight decay, whatever its name.
    LayerNorm,
    /// A norm of the list that Transformers had up to 4.52, such as `LlamaRMSNorm` and
    /// `T5LayerNorm`. There it has no weight decay, whatever its name.
    Norm,
    /// Any other type, including most RMSNorms and all BatchNorms. Its name decides whether it has
    /// weight decay.
    Other,
}

/// A parameter as it is known before training.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name: `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The type of its layer.
    pub layer: Layer,
    /// A second layer type that applies: of another layer that shares the parameter, or of an enclosing
    /// layer.
    pub also: Option<Layer>,
}

impl Parameter {
    /// A parameter with a known layer type.
    #[must_use]
    pub fn of(name: &str, shape: &[usize], layer: Layer) -> Parameter {
        Parameter { name: name.to_owned(), shape: shape.to_vec(), layer, also: None }
    }

    /// Whether it is the matrix of a linear layer, which GaLore and APOLLO can project.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.is(Layer::Linear) && self.name.ends_with(".weight")
    }

    /// Whether it is the table of an embedding, even if an output layer shares it: bitsandbytes' 8-bit
    /// optimizers keep its state in 32 bits.
    #[must_use]
    pub fn is_embedding(&self) -> bool {
        self.is(Layer::Embedding) && (self.name == "weight" || self.name.ends_with(".weight"))
    }

    /// Whether this version's Trainer applies weight decay to it: it is not in a LayerNorm, and its
    /// name is not that of a bias or norm.
    #[must_use]
    pub fn has_weight_decay(&self, version: Version) -> bool {
        if self.is(Layer::LayerNorm) {
            return false;
        }
        if version < Version::V4_57 {
            let name = self.name.to_lowercase();
            let called = |pattern: &&str| name.contains(pattern);
            return !self.is(Layer::Norm) && !["bias", "layernorm", "rmsnorm"].iter().any(called);
        }
        has_weight_decay(&self.name)
    }

    fn is(&self, layer: Layer) -> bool {
        self.layer == layer || self.also == Some(layer)
    }
}
