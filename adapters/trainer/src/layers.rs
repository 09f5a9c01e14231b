//! What is known of a parameter: its name, its shape, and the type of its layer.

use crate::training_arguments::has_weight_decay;
use crate::version::Version;

/// The type of the layer that a parameter belongs to, as far as Trainer asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// `torch.nn.Linear`, or derived from it: its `weight` is what GaLore and APOLLO project.
    /// GPT-2's `Conv1D`, which multiplies by a matrix too, is not one.
    Linear,
    /// `torch.nn.Embedding`, or derived from it: Trainer keeps the state of its `weight` in 32
    /// bits, where the others' has 8.
    Embedding,
    /// `torch.nn.LayerNorm`, or derived from it: it does not decay, whatever its name.
    LayerNorm,
    /// One of the norms that Transformers up to 4.52 kept a list of, `LlamaRMSNorm` and
    /// `T5LayerNorm` among them: there it does not decay, whatever its name.
    Norm,
    /// Any other, most RMSNorms and all BatchNorms among them: whether it decays is told by its
    /// name.
    Other,
}

/// What is known of a parameter before training.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name: `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The type of its layer.
    pub layer: Layer,
    /// Another type that counts too: of a layer that shares it under a later name, or of one
    /// around its own.
    pub also: Option<Layer>,
}

impl Parameter {
    /// A parameter of a layer of known type.
    #[must_use]
    pub fn of(name: &str, shape: &[usize], layer: Layer) -> Parameter {
        Parameter { name: name.to_owned(), shape: shape.to_vec(), layer, also: None }
    }

    /// Whether it is the matrix of a linear layer, which GaLore and APOLLO can project.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.is(Layer::Linear) && self.name.ends_with(".weight")
    }

    /// Whether it is the table of an embedding, also where an output layer shares it:
    /// bitsandbytes' 8-bit names keep its state in 32 bits.
    #[must_use]
    pub fn is_embedding(&self) -> bool {
        self.is(Layer::Embedding) && (self.name == "weight" || self.name.ends_with(".weight"))
    }

    /// Whether weight decay is for it, as Trainer of this version has it: it is in no LayerNorm,
    /// nor is it called a bias or a norm.
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
