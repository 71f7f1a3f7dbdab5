//! What `gem` and `go` install: from registries of the tests' own, as an operator has mirrors, for the public ones need not
//! be reached from where tests run. They are files behind a plain web server, as both of them specify.

use std::collections::HashMap;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::containers::{contained, engine};
use crate::environments::{DEBIAN, Given, built, environment, import_debian, run, session, start_given};
use crate::system::System;
use crate::system::client::Client;

/// Makes a gem source: a library, and a program in two versions that needs it. Like a source that is only files it has no
/// more than the lists, the description of each gem, and the gems.
const GEMS: &str = r##"#!/usr/bin/env ruby
require "fileutils"
require "rubygems/package"

FileUtils.mkdir_p(["/opt/gems/gems", "/opt/gems/quick/Marshal.4.8", "/tmp/gems/bin", "/tmp/gems/lib"])
Dir.chdir("/tmp/gems")
File.write("lib/oma-word.rb", "OMA_WORD = 'good day'\n")
def describe(name, version, files)
  Gem::Specification.new do |spec|
    spec.name, spec.version, spec.files = name, version, files
    spec.authors, spec.summary, spec.license, spec.homepage = ["oma"], "For a test.", "MIT", "http://registry.test/"
    yield spec
  end
end
built = [describe("oma-word", "1.0.0", ["lib/oma-word.rb"]) { }]
["1.0.0", "1.1.0"].each do |version|
  built << describe("oma-hello", version, ["bin/gem-hello"]) do |spec|
    spec.bindir, spec.executables = "bin", ["gem-hello"]
    spec.add_dependency "oma-word", "~> 1.0"
  end
end
built.each do |spec|
  File.write("bin/gem-hello", "#!/usr/bin/env ruby\nrequire 'oma-word'\nputs \"\#{OMA_WORD} from gem-hello #{spec.version}\"\n")
  File.chmod(0755, "bin/gem-hello")
  FileUtils.mv(Gem::Package.build(spec), "/opt/gems/gems")
end

Dir.chdir("/opt/gems")
specs = Dir["gems/*.gem"].sort.map { |file| Gem::Package.new(file).spec }
specs.each { |spec| File.binwrite("quick/Marshal.4.8/#{spec.full_name}.gemspec.rz", Gem.deflate(Marshal.dump(spec))) }
all = specs.map { |spec| [spec.name, spec.version, "ruby"] }
latest = all.group_by(&:first).map { |_, same| same.max_by { |entry| entry[1] } }
{"specs" => all, "latest_specs" => latest, "prerelease_specs" => []}.each do |name, list|
  File.binwrite("#{name}.4.8.gz", Gem::Util.gzip(Marshal.dump(list)))
end
"##;

/// A web server over files in memory.
#[derive(Clone, Default)]
struct Registry(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl Registry {
    fn add(&self, path: String, content: Vec<u8>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(path, content);
    }

    /// Serves the files, and gives the port.
    async fn serve(&self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    /// A module in a version, as `GOPROXY` has it.
    fn add_module(&self, path: &str, version: &str, files: &[(&str, String)]) {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            let name = format!("{path}@{version}/{name}");
            archive
                .start_file(name, SimpleFileOptions::default())
                .expect("a file");
            archive.write_all(content.as_bytes()).expect("written");
        }
        let archive = archive.finish().expect("an archive").into_inner();
        let (_, module) = files
            .iter()
            .find(|(name, _)| *name == "go.mod")
            .expect("a go.mod");
        let at = format!("/go/{path}/@v/{version}");
        self.add(
            format!("{at}.info"),
            json!({"Version": version}).to_string().into(),
        );
        self.add(format!("{at}.mod"), module.clone().into());
        self.add(format!("{at}.zip"), archive);
    }

    /// A library, and a module of two programs in two versions that need it.
    fn add_modules(&self) {
        let word = "registry.test/word";
        let library = "package word\n\nconst Word = \"good day\"\n".to_owned();
        let files = [
            ("go.mod", format!("module {word}\n\ngo 1.16\n")),
            ("word.go", library),
        ];
        self.add_module(word, "v1.0.0", &files);
        let tools = "registry.test/tools";
        for version in ["v1.0.0", "v1.1.0"] {
            let main = |name: &str| {
                format!(
                    "package main\n\nimport (\n\t\"fmt\"\n\n\t\"{word}\"\n)\n\n\
                     func main() {{ fmt.Println(word.Word, \"from {name} {version}\") }}\n"
                )
            };
            let module = format!("module {tools}\n\ngo 1.16\n\nrequire {word} v1.0.0\n");
            let files = [
                ("go.mod", module),
                ("go-hello/main.go", main("go-hello")),
                ("go-bye/main.go", main("go-bye")),
            ];
            self.add_module(tools, version, &files);
        }
        self.add("/go/registry.test/word/@v/list".to_owned(), "v1.0.0\n".into());
        let versions = "v1.0.0\nv1.1.0\n".into();
        self.add("/go/registry.test/tools/@v/list".to_owned(), versions);
    }

    /// The gem source, which is made in a build: so the machine needs no Ruby.
    async fn add_gems(&self, client: &Client, image: Option<&str>) {
        let body = json!({"name": "gems", "packages": {"apt": ["ruby"]}, "setupScript": GEMS});
        let id = environment(client, on(image, body)).await;
        let build = built(client, &id).await;
        assert_eq!(build["status"], "ready", "{build:#}");
        let chat = session(client, &id).await;
        let listed = run(&chat, "cp -R /opt/gems . && find gems -type f").await;
        assert_eq!(listed.lines().count(), 9, "{listed}");
        for path in listed.lines() {
            let file = client.get(&chat.file_path(path)).await;
            assert_eq!(file.status, 200, "{path}: {}", file.text());
            self.add(format!("/{path}"), file.body);
        }
    }
}

/// An environment of this image.
fn on(image: Option<&str>, mut environment: Value) -> Value {
    if let Some(image) = image {
        environment["image"] = image.into();
    }
    environment
}

async fn answer(State(registry): State<Registry>, uri: Uri) -> Result<Vec<u8>, StatusCode> {
    let files = registry.0.lock().unwrap_or_else(PoisonError::into_inner);
    files.get(uri.path()).cloned().ok_or(StatusCode::NOT_FOUND)
}

/// A file that everybody may read.
fn readable(content: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content).expect("written");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file.path(), open).expect("opened");
    file
}

/// What builds have of the registry at this port, beside the file that names the gem source.
fn given(port: u16) -> Given<'static> {
    Given {
        host: Some(format!("registry.test:{port}")),
        variables: vec![
            format!("GOPROXY=http://registry.test:{port}/go"),
            "GOSUMDB=off".to_owned(),
        ],
        ..Given::default()
    }
}

/// The file that names the gem source.
fn gemrc(port: u16) -> NamedTempFile {
    readable(&format!("---\n:sources:\n- http://registry.test:{port}/gems/\n"))
}

const HOSTS: (&str, &str) = ("OPENCLAW_SANDBOX_EGRESS_HOSTS", "registry.test=127.0.0.1");
const FILES: &str = "OPENCLAW_SANDBOX_BUILD_FILES";

#[tokio::test]
async fn gems_and_go_packages_come_from_the_operators_registries() {
    let registry = Registry::default();
    registry.add_modules();
    let port = registry.serve().await;
    let gemrc = gemrc(port);
    let file = &format!("/etc/gemrc={}", gemrc.path().display());
    let start = |is_ordinary: bool| {
        start_given(given(port), move |options| {
            let options = if is_ordinary { options.ordinary() } else { options };
            options.set(HOSTS.0, HOSTS.1).set(FILES, file)
        })
    };

    let Some(system) = start(false).await else { return };
    registry.add_gems(system.client(), None).await;
    installs(&system, None, ["oma-hello:1.0.0", "gem-hello 1.0.0"]).await;
    refuses(&system).await;
    system.stop().await;

    // The newest one, where none is named, and where the server is an ordinary user.
    let Some(system) = start(true).await else { return };
    installs(&system, None, ["oma-hello", "gem-hello 1.1.0"]).await;
    system.stop().await;
}

#[tokio::test]
async fn gems_and_go_packages_come_from_them_into_containers() {
    let Some(engine) = engine(false) else { return };
    let registry = Registry::default();
    registry.add_modules();
    let port = registry.serve().await;
    let gemrc = gemrc(port);
    let mut files = vec![format!("/etc/gemrc={}", gemrc.path().display())];
    // Whom to trust, which an image does not know.
    let trusted = std::env::var("SSL_CERT_FILE").ok();
    files.extend(trusted.map(|path| format!("/etc/trusted.pem={path}")));
    let given = Given {
        place: Some("/etc/trusted.pem"),
        ..given(port)
    };
    let started = start_given(given, |options| {
        contained(&engine)(options)
            .set("OPENCLAW_SANDBOX_IMAGES", DEBIAN)
            .set(HOSTS.0, HOSTS.1)
            .set(FILES, &files.join(","))
    });
    let Some(system) = started.await else { return };
    import_debian(&engine);
    registry.add_gems(system.client(), Some(DEBIAN)).await;
    // The image has neither Ruby nor Go: both are brought.
    installs(&system, Some(DEBIAN), ["oma-hello:1.0.0", "gem-hello 1.0.0"]).await;
    system.stop().await;
}

/// What is not there is told in the installers' words.
async fn refuses(system: &System) {
    let client = system.client();
    let wrong = [
        (
            json!({"gem": ["oma-none"]}),
            "gem could not install oma-none",
            "Could not find a valid gem 'oma-none'",
        ),
        (
            json!({"go": ["registry.test/none"]}),
            "go could not install registry.test/none",
            "404 Not Found",
        ),
        (
            json!({"go": ["registry.test/tools/go-hello@v2.0.0"]}),
            "go could not install registry.test/tools/go-hello@v2.0.0",
            "404 Not Found",
        ),
    ];
    for (packages, begins, words) in wrong {
        let id = environment(client, json!({"name": "wrong", "packages": packages})).await;
        let failed = built(client, &id).await;
        let error = failed["error"].as_str().expect("an error");
        assert!(error.starts_with(begins) && error.contains(words), "{error}");
    }
}

/// Has an environment with a list of hosts that does not name the registry install a gem and two programs of a module, and
/// a session run them.
async fn installs(system: &System, image: Option<&str>, [gem, said_by_gem]: [&str; 2]) {
    let client = system.client();
    let body = json!({
        "name": "e",
        "packages": {"gem": [gem], "go": ["registry.test/tools/go-hello@v1.0.0", "registry.test/tools/go-bye"]},
        "networking": {"type": "limited", "allowedHosts": ["elsewhere.test"], "allowPackageManagers": true},
    });
    let id = environment(client, on(image, body)).await;
    let build = built(client, &id).await;
    assert_eq!(build["status"], "ready", "{build:#}");
    let chat = session(client, &id).await;
    let said = run(
        &chat,
        "gem-hello; go-hello; go-bye; command -v gem-hello go-hello go-bye; ls -A /root ~ /tmp; \
         env | grep -c -E 'GOPROXY|GOSUMDB'; cat /etc/gemrc; echo ended",
    )
    .await;
    let expected = format!(
        "good day from {said_by_gem}\ngood day from go-hello v1.0.0\ngood day from go-bye v1.1.0\n\
         /usr/local/bin/gem-hello\n/usr/local/bin/go-hello\n/usr/local/bin/go-bye\n"
    );
    assert!(said.starts_with(&expected), "{said}");
    // Nothing of what only the build had: an empty file stays where it was shown one.
    assert!(!said.contains("go-build"), "{said}");
    assert!(said.ends_with("\n0\nended\n"), "{said}");
}
