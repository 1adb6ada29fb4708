//! Scopes: which profile and which field rules apply to the lines of a container, by its service and its labels.
//!
//! What always holds: what a scope chooses was configured beside the rules; a container can only be matched, by what it is called
//! and how it is labelled. The first scope that covers a container decides for all of its lines in a batch. Without scopes
//! nothing of this runs.

use std::collections::BTreeMap;

use arrow_array::Array;
use beeacon_record::batch::labels_of;
use beeacon_record::schema::Column;
use beeacon_record::{Batch, BatchError};

use crate::error::{RuleFault, RulesError};
use crate::fields::{FieldRule, glob_fits};
use crate::limits::FIELD_KEY_BYTES_MAX;

/// Containers for which other rules apply.
#[derive(Clone, Debug)]
pub struct Scope {
    services: Vec<String>,
    labels: Vec<(String, String)>,
    pub(crate) profile: Option<String>,
    pub(crate) fields: Vec<FieldRule>,
    /// Whether containers choose it themselves, so that it must leave no more than the engine's own profile does.
    pub(crate) is_chosen: bool,
}

/// The label by which a container chooses one of the profiles that the host offers.
pub const PROFILE_LABEL: &str = "beeacon.profile";

impl Scope {
    /// The containers of which the service fits one of `services`, and every one of `labels` fits; `*` and `?` stand for characters,
    /// case does not matter, and an empty list asks for nothing. They get `profile` instead of the engine's, and `fields` before
    /// those of the engine.
    ///
    /// ```
    /// use beeacon_filters::Scope;
    /// let scope = Scope::new(&["pay*".into()], &[], Some("pci_dss"), vec![]).unwrap();
    /// assert!(scope.covers("payments", &[]) && !scope.covers("web", &[]));
    /// assert!(Scope::new(&[], &[], None, vec![]).is_err());
    /// ```
    ///
    /// # Errors
    /// With every fault found.
    pub fn new(
        services: &[String],
        labels: &[(String, String)],
        profile: Option<&str>,
        fields: Vec<FieldRule>,
    ) -> Result<Scope, RulesError> {
        let mut faults = Vec::new();
        let mut fault = |reason: &str, instead: &str| faults.push(RuleFault::new("scope", reason, instead));
        if services.is_empty() && labels.is_empty() {
            fault("covers no container", "give `services` or `labels`, or change the filter for all");
        }
        if profile.is_none() && fields.is_empty() {
            fault("changes nothing", "give a `profile`, or `fields`");
        }
        let globs = services.iter().chain(labels.iter().map(|(_, value)| value));
        if globs.clone().any(String::is_empty) || labels.iter().any(|(name, _)| name.is_empty()) {
            fault("has an empty name", "write a name, with * and ? for characters");
        }
        if globs.clone().any(|glob| glob.len() > 4 * FIELD_KEY_BYTES_MAX) {
            fault("has a name that is too long", "shorten it with *");
        }
        let lower = |text: &String| text.to_ascii_lowercase();
        let scope = Scope {
            services: services.iter().map(lower).collect(),
            labels: labels.iter().map(|(name, value)| (name.clone(), lower(value))).collect(),
            profile: profile.map(str::to_owned),
            fields,
            is_chosen: false,
        };
        if faults.is_empty() { Ok(scope) } else { Err(RulesError(faults)) }
    }

    /// The containers that choose this profile by their label [`PROFILE_LABEL`]. An engine takes it only where the profile is at least
    /// as strict as the engine's own: every rule of that runs in it, with an action that leaves no more, and what else runs leaves
    /// nothing.
    ///
    /// ```
    /// use beeacon_filters::{Engine, EngineOptions, Scope};
    /// let offers = |profile: &str| EngineOptions { scopes: vec![Scope::chosen(profile)], ..EngineOptions::default() };
    /// assert!(Engine::new(offers("hipaa")).unwrap().offers("hipaa"));
    /// assert!(Engine::new(offers("secrets")).is_err());
    /// ```
    pub fn chosen(profile: &str) -> Scope {
        Scope {
            services: Vec::new(),
            labels: vec![(PROFILE_LABEL.to_owned(), profile.to_ascii_lowercase())],
            profile: Some(profile.to_owned()),
            fields: Vec::new(),
            is_chosen: true,
        }
    }

    /// Whether it covers a container of this service with these labels.
    pub fn covers(&self, service: &str, labels: &[(String, String)]) -> bool {
        let fits = |glob: &String, text: &str| glob_fits(glob.as_bytes(), text.as_bytes());
        (self.services.is_empty() || self.services.iter().any(|glob| fits(glob, service)))
            && self
                .labels
                .iter()
                .all(|(name, glob)| labels.iter().any(|(label, value)| label == name && fits(glob, value)))
    }

    /// The labels that it asks for.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|(name, _)| name.as_str())
    }

    /// What it is, for the rule set's id.
    pub(crate) fn in_words(&self) -> String {
        format!("{:?} {:?}", self.services, self.labels)
    }
}

/// The number of the scope that covers each source of a batch which one covers. A source is one container; its first row decides.
pub(crate) fn sources<'a>(
    scopes: impl Iterator<Item = &'a Scope> + Clone,
    batch: &Batch,
) -> Result<BTreeMap<String, usize>, BatchError> {
    let (sources, names) = batch.dictionary_column(Column::Source)?;
    let (services, service_names) = batch.dictionary_column(Column::Service)?;
    let (labels, label_texts) = batch.dictionary_column(Column::Labels)?;
    let mut seen = vec![false; names.len()];
    let mut covered = BTreeMap::new();
    for ((source, service), labels) in sources.values().iter().zip(services.values()).zip(labels.values()) {
        let place = |key: &i32| usize::try_from(*key).unwrap_or(usize::MAX);
        let Some(is_seen) = seen.get_mut(place(source)) else { continue };
        if std::mem::replace(is_seen, true) {
            continue;
        }
        let text = |array: &arrow_array::StringArray, key: &i32| {
            array.iter().nth(place(key)).flatten().unwrap_or_default().to_owned()
        };
        let (service, labels) = (text(service_names, service), labels_of(&text(label_texts, labels)));
        if let Some(scope) = scopes.clone().position(|scope| scope.covers(&service, &labels)) {
            covered.insert(text(names, source), scope);
        }
    }
    Ok(covered)
}
