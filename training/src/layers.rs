//! What is known of a parameter: its name, its shape, and the type of its layer.

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
    /// Any other, RMSNorm and BatchNorm among them: whether it decays is told by its name.
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
    /// Guesses from name and shape what Trainer knows from the layer's type: a `weight` of two
    /// dimensions is a linear layer's unless its name speaks of an embedding, and whatever has
    /// no more than one dimension is a bias or belongs to a norm.
    #[must_use]
    pub fn new(name: &str, shape: &[usize]) -> Parameter {
        let layer = name.strip_suffix(".weight").map(str::to_lowercase);
        let embeds = |layer: &String| {
            let last = layer.rsplit('.').next().unwrap_or(layer);
            layer.contains("embed")
                || layer.ends_with("bias")
                || matches!(last, "wte" | "wpe" | "emb" | "shared")
        };
        let layer = match (shape.len(), layer) {
            (0 | 1, _) => Layer::LayerNorm,
            (2, Some(layer)) if embeds(&layer) => Layer::Embedding,
            (2, Some(_)) => Layer::Linear,
            _ => Layer::Other,
        };
        Parameter::of(name, shape, layer)
    }

    /// A parameter of a layer of known type.
    #[must_use]
    pub fn of(name: &str, shape: &[usize], layer: Layer) -> Parameter {
        Parameter { name: name.to_owned(), shape: shape.to_vec(), layer, also: None }
    }

    /// Whether it is the matrix of a linear layer, which GaLore and APOLLO can project.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.layer == Layer::Linear && self.is_weight()
    }

    /// Whether it is the table of an embedding, also where an output layer shares it: bitsandbytes'
    /// 8-bit names keep its state in 32 bits.
    #[must_use]
    pub fn is_embedding(&self) -> bool {
        (self.layer == Layer::Embedding && self.is_weight()) || self.also == Some(Layer::Embedding)
    }

    /// Whether it belongs to a LayerNorm, and does not decay for that.
    #[must_use]
    pub fn is_layer_norm(&self) -> bool {
        self.layer == Layer::LayerNorm
    }

    fn is_weight(&self) -> bool {
        self.name == "weight" || self.name.ends_with(".weight")
    }
}
