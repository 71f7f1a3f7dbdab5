//! Environments as clients read them, with every default spelled out.

use oma_domain::Environment;
use oma_domain::environment::{Hosting, Networking, Packages, Spec};
use serde_json::{Value, json};

use crate::dialects::claude::time;

/// An environment.
pub(super) fn environment(environment: &Environment) -> Value {
    let Environment {
        id,
        spec,
        created_at,
        updated_at,
        archived_at,
        ..
    } = environment;
    let Spec {
        name,
        description,
        packages,
        networking,
        metadata,
        hosting,
        // This dialect has no words for these (DIVERGENCES.md); an update keeps them.
        variables: _,
        limits: _,
        image: _,
        setup_script: _,
    } = spec;
    let config = match hosting {
        Hosting::Cloud => json!({
            "type": "cloud",
            "networking": self::networking(networking),
            "packages": self::packages(packages.as_ref()),
        }),
        Hosting::SelfHosted => json!({"type": "self_hosted"}),
    };
    json!({
        "id": id.as_str(),
        "type": "environment",
        "name": name,
        "description": description,
        "config": config,
        "scope": "organization",
        "metadata": metadata,
        "created_at": time::value(*created_at),
        "updated_at": time::value(*updated_at),
        "archived_at": time::optional(*archived_at),
    })
}

fn networking(networking: &Networking) -> Value {
    match networking {
        Networking::Unrestricted => json!({"type": "unrestricted"}),
        Networking::Limited {
            allowed_hosts,
            allow_mcp_servers,
            allow_package_managers,
        } => json!({
            "type": "limited",
            "allowed_hosts": allowed_hosts,
            "allow_mcp_servers": allow_mcp_servers,
            "allow_package_managers": allow_package_managers,
        }),
    }
}

fn packages(packages: Option<&Packages>) -> Value {
    let none = Packages::default();
    let Packages {
        apt,
        cargo,
        gem,
        go,
        npm,
        pip,
    } = packages.unwrap_or(&none);
    let list = |names: &Option<Vec<String>>| json!(names.as_deref().unwrap_or_default());
    json!({
        "type": "packages",
        "apt": list(apt),
        "cargo": list(cargo),
        "gem": list(gem),
        "go": list(go),
        "npm": list(npm),
        "pip": list(pip),
    })
}
