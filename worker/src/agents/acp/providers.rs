//! Who offers models: where each is reached, and where agents that know several of them expect
//! its key. The one place from which base URLs and keys of such agents come.

use std::collections::BTreeMap;

/// A provider of models.
#[derive(Debug)]
pub(super) struct Provider {
    /// As it stands before the slash of a model's name.
    pub(super) name: &'static str,
    /// The variable that says where it is, if it is not at its usual place.
    address: &'static str,
    /// What opencode expects at the end of that address.
    path: &'static str,
    /// The variable for its key.
    pub(super) key: &'static str,
    /// goose's own variable for its address.
    pub(super) goose_host: &'static str,
}

const PROVIDERS: [Provider; 5] = [
    Provider {
        name: "anthropic",
        address: "ANTHROPIC_BASE_URL",
        path: "/v1",
        key: "ANTHROPIC_API_KEY",
        goose_host: "ANTHROPIC_HOST",
    },
    Provider {
        name: "openai",
        address: "OPENAI_BASE_URL",
        path: "",
        key: "OPENAI_API_KEY",
        goose_host: "OPENAI_HOST",
    },
    Provider {
        name: "google",
        address: "GOOGLE_GEMINI_BASE_URL",
        path: "/v1beta",
        key: "GOOGLE_API_KEY",
        goose_host: "GOOGLE_HOST",
    },
    Provider {
        name: "openrouter",
        address: "OPENROUTER_BASE_URL",
        path: "",
        key: "OPENROUTER_API_KEY",
        goose_host: "OPENROUTER_HOST",
    },
    Provider {
        name: "ollama",
        address: "OLLAMA_HOST",
        path: "/v1",
        key: "OLLAMA_API_KEY",
        goose_host: "OLLAMA_HOST",
    },
];

/// Splits `PROVIDER/NAME`.
pub(super) fn split(model: &str) -> Option<(&str, &str)> {
    model
        .split_once('/')
        .filter(|(provider, name)| !provider.is_empty() && !name.is_empty())
}

/// The provider of that name, if we know more of it than its name.
pub(super) fn named(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}

impl Provider {
    /// Where it is, if the run's environment says so: a URL without a slash at its end.
    pub(super) fn address(&self, environment: &BTreeMap<String, String>) -> Option<String> {
        let address = environment.get(self.address)?.trim();
        let address = address.trim_end_matches('/');
        (!address.is_empty()).then(|| {
            // `OLLAMA_HOST` is often given without a scheme.
            let scheme = if address.contains("://") {
                ""
            } else {
                "http://"
            };
            format!("{scheme}{address}")
        })
    }

    /// The same with the path that opencode's clients expect.
    pub(super) fn opencode_url(&self, environment: &BTreeMap<String, String>) -> Option<String> {
        let address = self.address(environment)?;
        let path = if address.ends_with(self.path) {
            ""
        } else {
            self.path
        };
        Some(format!("{address}{path}"))
    }
}
