//! The table of HTTP routes: what each needs, and what it does. The guard, the description of the API and the tests are made from it.

use std::collections::BTreeSet;

use http::Method;

use crate::role::Needs;

/// What a route takes as its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// JSON of the schema with this name.
    Json(&'static str),
    /// Bytes of this content type.
    Bytes(&'static str),
}

/// How often one address may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As often as it likes: probes, and the doors that push back by themselves.
    Free,
    /// As often as configured.
    Counted,
}

/// One method of one path.
#[derive(Clone, Debug)]
pub struct Route {
    /// The method. `HEAD` goes with `GET`.
    pub method: Method,
    /// The path as the router has it, such as `/api/v1/silences/{id}`.
    pub path: &'static str,
    /// Who may use it.
    pub needs: Needs,
    /// Whether its use is written to the audit file: every route that changes something.
    pub audited: bool,
    /// How often it may be used.
    pub rate: Rate,
    /// What it does, for its description.
    pub does: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// Parameters of its query string: the name, and what it means.
    pub query: &'static [(&'static str, &'static str)],
    /// The content types it answers with, the usual one first, and the schema of JSON.
    pub gives: (&'static [&'static str], &'static str),
}

/// A `GET` that viewers may use and that answers with JSON: what most routes are. The others differ by a field or two.
pub const READS: Route = Route {
    method: Method::GET,
    path: "",
    needs: Needs::Viewer,
    audited: false,
    rate: Rate::Counted,
    does: "",
    takes: Takes::Nothing,
    query: &[],
    gives: (&["application/json"], "Object"),
};

/// The table.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Vec<Route>,
}

impl Routes {
    /// Of these routes.
    pub fn new(routes: Vec<Route>) -> Self {
        Routes { routes }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// The route of a method on a path of the router.
    pub fn find(&self, method: &Method, path: &str) -> Option<&Route> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.routes.iter().find(|route| route.method == *method && route.path == path)
    }

    /// The path in the table that a request's path meets.
    ///
    /// ```
    /// use beeacon_access::{READS, Route, Routes};
    /// let routes = Routes::new(vec![Route { path: "/api/v1/silences/{id}", ..READS }]);
    /// assert_eq!(routes.path_of("/api/v1/silences/7f"), Some("/api/v1/silences/{id}"));
    /// assert_eq!(routes.path_of("/api/v1/silences"), None);
    /// ```
    pub fn path_of(&self, path: &str) -> Option<&'static str> {
        let meets = |pattern: &str| {
            let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        self.routes.iter().map(|route| route.path).find(|pattern| meets(pattern))
    }

    /// The methods of a path, as the header `Allow` lists them; none where the table does not have the path.
    pub fn allowed(&self, path: &str) -> Option<String> {
        let mut methods: BTreeSet<&str> = self
            .routes
            .iter()
            .filter(|route| route.path == path)
            .map(|route| route.method.as_str())
            .collect();
        if methods.contains("GET") {
            methods.insert("HEAD");
        }
        (!methods.is_empty()).then(|| methods.into_iter().collect::<Vec<_>>().join(", "))
    }
}
