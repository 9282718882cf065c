//! Models in a bucket: their files are copied into a temporary folder, which is removed with the
//! model.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::error::config_error::ConfigError;
use crate::model::ModelSpec;
use crate::model::card::{CARD, ModelCard};
use crate::model::load::digest::read;
use crate::model::onnx_metadata::OnnxMetadata;
use crate::storage::{Location, is_url};
use crate::temporary_folder::TemporaryFolder;

/// The maximum size of all files of a model in a bucket: 16 GiB.
const MAX_BYTES: u64 = 16 << 30;

/// The copies of the files of a model in a bucket.
pub(in crate::model) struct RemoteCopies {
    folder: TemporaryFolder,
    /// The folder of the copies of each key, and the folder of the originals.
    origins: Vec<(PathBuf, Location)>,
    bytes: u64,
}

impl RemoteCopies {
    /// Copies the files of a model that are in a bucket. Returns the options with the paths of the
    /// copies; `None` if all files are local.
    ///
    /// # Errors
    /// The files that cannot be copied, by key.
    pub(super) fn fetch(spec: &ModelSpec) -> Result<Option<(ModelSpec, Self)>, Vec<ConfigError>> {
        let mut local = spec.clone();
        let keys = [
            ("path", &mut local.path),
            ("encoder", &mut local.encoder),
            ("decoder", &mut local.decoder),
            ("model", &mut local.model),
        ];
        let remote: Vec<(&str, &mut PathBuf)> = keys
            .into_iter()
            .filter_map(|(key, path)| Some((key, path.as_mut()?)))
            .filter(|(_, path)| path.to_str().is_some_and(is_url))
            .collect();
        if remote.is_empty() {
            return Ok(None);
        }
        let folder = TemporaryFolder::new("latentflow-model-");
        let folder = folder.map_err(|error| {
            let message = format!("cannot create a temporary folder: {error}");
            vec![ConfigError::new(remote[0].0, message)]
        })?;
        let mut copies = Self {
            folder,
            origins: Vec::new(),
            bytes: 0,
        };
        let mut faults = Vec::new();
        for (key, path) in remote {
            match Location::from_path(path) {
                Ok(location) => match copies.fetch_key(key, &location) {
                    Ok(copy) => *path = copy,
                    Err(message) => faults.push(ConfigError::new(key, message)),
                },
                Err(error) => faults.push(error.at(key)),
            }
        }
        if faults.is_empty() {
            Ok(Some((local, copies)))
        } else {
            Err(faults)
        }
    }

    /// Replaces the paths of copies in a message by the URLs of their originals.
    pub(super) fn with_urls(&self, fault: ConfigError) -> ConfigError {
        let mut message = fault.message.clone();
        for (copy, origin) in &self.origins {
            let url = origin.to_path().display().to_string();
            message = message.replace(&copy.display().to_string(), &url);
        }
        ConfigError::new(fault.key, message)
    }

    fn fetch_key(&mut self, key: &str, location: &Location) -> Result<PathBuf, String> {
        let folder = self.folder.path().join(key);
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        if key == "path" {
            self.origins.push((folder.clone(), location.clone()));
            self.fetch_folder(&folder, location)?;
            return Ok(folder);
        }
        let url = location.to_path().display().to_string();
        let Some((parent, name)) = url.rsplit_once('/') else {
            return Err(format!("{url} does not name an object"));
        };
        let parent = Location::parse(parent).map_err(|error| error.to_string())?;
        self.origins.push((folder.clone(), parent.clone()));
        if !self.fetch_file(&folder, &parent, name)? {
            return Err(format!("{url} does not exist"));
        }
        self.fetch_external(&folder, &parent, name)?;
        Ok(folder.join(name))
    }

    /// Copies the card, the files that it lists, and the ONNX files.
    fn fetch_folder(&mut self, folder: &Path, location: &Location) -> Result<(), String> {
        let mut names = vec![
            "encoder.onnx".to_owned(),
            "decoder.onnx".to_owned(),
            "model.onnx".to_owned(),
        ];
        if self.fetch_file(folder, location, CARD)? {
            // The faults of the card are reported when the copy is read.
            let card = ModelCard::read(&folder.join(CARD)).ok();
            let listed = card.into_iter().flat_map(|card| card.files.into_keys());
            names.extend(listed.filter(|name| name != CARD));
        }
        names.sort();
        names.dedup();
        for name in &names {
            if self.fetch_file(folder, location, name)? && has_onnx_ending(name) {
                self.fetch_external(folder, location, name)?;
            }
        }
        Ok(())
    }

    /// Copies the external data of an ONNX file.
    fn fetch_external(
        &mut self,
        folder: &Path,
        location: &Location,
        name: &str,
    ) -> Result<(), String> {
        let bytes = read(&folder.join(name))?;
        // A file that is not ONNX is refused when it is opened.
        let header = OnnxMetadata::read(&bytes);
        let external = header.map(|header| header.external).unwrap_or_default();
        for file in external {
            let is_below = Path::new(&file)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if is_below {
                self.fetch_file(folder, location, &file)?;
            }
        }
        Ok(())
    }

    /// Copies an object, unless it was copied before; `false` if it does not exist.
    fn fetch_file(
        &mut self,
        folder: &Path,
        location: &Location,
        name: &str,
    ) -> Result<bool, String> {
        let to = folder.join(name);
        // A card may list the external data of a graph, and two graphs may share it.
        if to.exists() {
            return Ok(true);
        }
        let from = location.join(name);
        let url = from.to_path().display().to_string();
        let Some(entry) = from.file().map_err(|error| error.to_string())? else {
            return Ok(false);
        };
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > MAX_BYTES {
            return Err(format!(
                "{url}: the files of the model have more than {MAX_BYTES} bytes"
            ));
        }
        let copied = from
            .open(entry.size, entry.etag.as_deref())
            .and_then(|reader| copy(reader.take(entry.size), &to));
        match copied {
            Ok(bytes) if bytes == entry.size => Ok(true),
            Ok(bytes) => Err(format!("{url}: read {bytes} of {} bytes", entry.size)),
            Err(error) => Err(format!("{url}: {error}")),
        }
    }
}

fn copy(mut from: impl Read, to: &Path) -> io::Result<u64> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    io::copy(&mut from, &mut File::create_new(to)?)
}

fn has_onnx_ending(name: &str) -> bool {
    let ending = Path::new(name).extension();
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"))
}
