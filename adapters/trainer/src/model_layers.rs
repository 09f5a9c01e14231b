//! The layers of a model in Python, in the format of `adapters/trainer/export/model_layers.py`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value as Json;
use thiserror::Error;

use crate::layers::{Layer, Parameter};

/// The error of reading or using a file of layers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayersError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not JSON.
    #[error("model layers: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON with another structure.
    #[error("model layers: {at}: wanted {expected}")]
    Form {
        /// The path in the JSON.
        at: String,
        /// The expected value.
        expected: &'static str,
    },
    /// A parameter that the model does not have.
    #[error("model layers: no parameter `{0}`")]
    Unknown(String),
    /// A parameter with another shape in the file.
    #[error("model layers: `{name}` has the shape {want:?}, not {got:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// Its shape in the file.
        want: Vec<usize>,
        /// The shape that was passed.
        got: Vec<usize>,
    },
}

/// The maximum size of a file in bytes.
const LONGEST: u64 = 1 << 28;

/// The parameters of a model in Python, with their layer types.
///
/// ```
/// use bitstep_trainer::{Layer, ModelLayers};
/// let text = r#"{
///     "modules": {
///         "": ["__main__.Model", "torch.nn.modules.module.Module"],
///         "embed": ["torch.nn.modules.sparse.Embedding", "torch.nn.modules.module.Module"],
///         "head": ["torch.nn.modules.linear.Linear", "torch.nn.modules.module.Module"]
///     },
///     "parameters": [
///         {"names": ["embed.weight", "head.weight"], "shape": [11, 8]},
///         {"names": ["scale"], "shape": []}
///     ]
/// }"#;
/// let layers = ModelLayers::from_json(text)?;
/// let found = layers.parameters([("scale", &[][..]), ("embed.weight", &[11, 8])])?;
/// assert_eq!(found[0].layer, Layer::Other);
/// assert!(found[1].is_embedding() && !found[1].is_linear());
/// # Ok::<(), bitstep_trainer::LayersError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelLayers {
    /// In the order of `named_parameters()`.
    all: Vec<Parameter>,
    /// By all names of a parameter.
    numbers: HashMap<String, usize>,
}

impl ModelLayers {
    /// Reads a regular file of at most 256 MiB. (A large model's has a few.)
    ///
    /// # Errors
    /// [`LayersError`].
    pub fn read(path: impl AsRef<Path>) -> Result<ModelLayers, LayersError> {
        let path = path.as_ref();
        let text = crate::file::read(path, LONGEST)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|source| LayersError::Io { path: path.display().to_string(), source })?;
        Self::from_json(&text)
    }

    /// Parses `{"modules": {name: [types]}, "parameters": [{"names": […], "shape": […]}]}`, where
    /// `types` are a module's class and its base classes.
    ///
    /// # Errors
    /// [`LayersError`].
    pub fn from_json(text: &str) -> Result<ModelLayers, LayersError> {
        let file: Json = serde_json::from_str(text)?;
        let modules = file.get("modules").and_then(Json::as_object);
        let modules = modules.ok_or_else(|| form("modules", "an object"))?;
        let mut types = HashMap::new();
        for (name, list) in modules {
            let at = || format!("modules.{name}");
            let own = own_type(list).ok_or_else(|| form(&at(), "a list of types"))?;
            let module = Module::of(name, own, &types);
            types.insert(
                name.as_str(),
                module.ok_or_else(|| form(&at(), "the module that it is in to come before it"))?,
            );
        }
        let parameters = file.get("parameters").and_then(Json::as_array);
        let parameters = parameters.ok_or_else(|| form("parameters", "a list"))?;
        let (mut all, mut numbers) = (Vec::new(), HashMap::new());
        for (number, entry) in parameters.iter().enumerate() {
            let wrong = |expected| move || form(&format!("parameters[{number}]"), expected);
            let names = strings(&entry["names"]).filter(|names| !names.is_empty());
            let names = names.ok_or_else(wrong("`names`, a list of one or more"))?;
            let shape =
                dimensions(&entry["shape"]).ok_or_else(wrong("`shape`, a list of sizes"))?;
            all.push(parameter(&names, &shape, &types)?);
            for name in names {
                if numbers.insert(name.to_owned(), number).is_some() {
                    return Err(form(
                        &format!("parameters[{number}]"),
                        "names of one parameter each",
                    ));
                }
            }
        }
        Ok(ModelLayers { all, numbers })
    }

    /// All parameters, in the order of the model's `named_parameters()`, which is that of Trainer's
    /// checkpoints.
    #[must_use]
    pub fn all(&self) -> &[Parameter] {
        &self.all
    }

    /// The parameter with this name. A shared parameter is found under all of its names, and has the
    /// first of them, as in Trainer.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.numbers.get(name).map(|&number| &self.all[number])
    }

    /// The parameters with these names and shapes, in this order.
    ///
    /// # Errors
    /// A name that the model does not have, or a shape that differs.
    pub fn parameters<'a>(
        &self,
        named: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<Vec<Parameter>, LayersError> {
        let one = |(name, shape): (&str, &[usize])| {
            let found = self.get(name).ok_or_else(|| LayersError::Unknown(name.to_owned()))?;
            if found.shape != shape {
                let (want, got) = (found.shape.clone(), shape.to_vec());
                return Err(LayersError::Shape { name: name.to_owned(), want, got });
            }
            Ok(found.clone())
        };
        named.into_iter().map(one).collect()
    }
}

fn form(at: &str, expected: &'static str) -> LayersError {
    LayersError::Form { at: at.to_owned(), expected }
}

fn strings(value: &Json) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Json::as_str).collect()
}

fn dimensions(value: &Json) -> Option<Vec<usize>> {
    let size = |n: &Json| usize::try_from(n.as_u64()?).ok();
    value.as_array()?.iter().map(size).collect()
}

/// The layer type of a module from its class and base classes.
fn own_type(classes: &Json) -> Option<Layer> {
    let found = classes.as_array()?.iter().map(|class| class.as_str().map(layer_of));
    let found = found.collect::<Option<Vec<_>>>()?;
    let is_norm = found.contains(&Some(Layer::LayerNorm));
    let first = found.into_iter().flatten().next();
    Some(if is_norm { Layer::LayerNorm } else { first.unwrap_or(Layer::Other) })
}

#[derive(Clone, Copy)]
struct Module {
    layer: Layer,
    /// The norm that it is, or that encloses it.
    norm: Option<Layer>,
}

impl Module {
    /// `before` contains the enclosing module.
    fn of(name: &str, own: Layer, before: &HashMap<&str, Module>) -> Option<Module> {
        let is_norm = matches!(own, Layer::LayerNorm | Layer::Norm);
        if name.is_empty() {
            // Trainer checks the modules of the model, not the model itself.
            return Some(Module { layer: if is_norm { Layer::Other } else { own }, norm: None });
        }
        let around = before.get(name.rsplit_once('.').map_or("", |(around, _)| around))?;
        Some(Module { layer: own, norm: around.norm.or(is_norm.then_some(own)) })
    }
}

/// The parameter with these names, whose layer is that of the first name.
fn parameter(
    names: &[&str],
    shape: &[usize],
    types: &HashMap<&str, Module>,
) -> Result<Parameter, LayersError> {
    let owner = |name: &&str| {
        let (module, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        let expected = "a module, as it has parameters";
        let found =
            types.get(module).ok_or_else(|| form(&format!("modules.{module}"), expected))?;
        Ok((leaf.to_owned(), *found))
    };
    let owners = names.iter().map(owner).collect::<Result<Vec<_>, LayersError>>()?;
    let Module { layer, norm } = owners[0].1;
    let is_table = |(leaf, m): &(String, Module)| leaf == "weight" && m.layer == Layer::Embedding;
    let table = owners.iter().any(is_table).then_some(Layer::Embedding);
    let mut parameter = Parameter::of(names[0], shape, layer);
    parameter.also = norm.or(table).filter(|also| *also != layer);
    Ok(parameter)
}

/// The layer type of a class, if it matters to Trainer.
fn layer_of(class: &str) -> Option<Layer> {
    match class {
        "torch.nn.modules.linear.Linear" => Some(Layer::Linear),
        "torch.nn.modules.sparse.Embedding" => Some(Layer::Embedding),
        "torch.nn.modules.normalization.LayerNorm" => Some(Layer::LayerNorm),
        _ => {
            let name = class.strip_prefix("transformers.models.")?.rsplit('.').next()?;
            LISTED.contains(&name).then_some(Layer::Norm)
        }
    }
}

/// The classes that modules of Transformers 4.49 add to `ALL_LAYERNORM_LAYERS`.
const LISTED: &[&str] = &[
    "ChameleonRMSNorm",
    "GraniteMoeRMSNorm",
    "IdeficsRMSNorm",
    "LlamaRMSNorm",
    "LongT5LayerNorm",
    "MegaSequenceNorm",
    "MoshiRMSNorm",
    "NemotronLayerNorm1P",
    "OlmoeRMSNorm",
    "Pix2StructLayerNorm",
    "Pop2PianoLayerNorm",
    "RecurrentGemmaRMSNorm",
    "SwitchTransformersLayerNorm",
    "T5LayerNorm",
    "ZambaRMSNorm",
];
