// What Anthropic's SDK for JavaScript says of every answer, as JSON schemas: its declarations tell what may be absent
// from what may be null, which Python's do not.
//
// `node types.mjs` prints `{packages: {<name>: {routes, definitions}}}`. A route is `{method, path, kind, schema}`, read
// from the SDK's own methods; `kind` is `json`, `stream` (of events) or `bytes`, and `schema` names a definition.

import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { createGenerator } from "ts-json-schema-generator";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
// The newest version, and one that asks for the shapes which files and skills had while they were beta.
const packages = ["@anthropic-ai/sdk", "anthropic-sdk-before-ga"];
// The parts of the API that this dialect is about, as folders and files of the SDK's `resources/beta`.
const parts =
  /^(agents|deployment-runs|deployments|dreams|environments|files|memory-stores|sessions|skills|tunnels|user-profiles|vaults|organization\/webhooks)(\/|\.|$)/;

/** All files below a folder, relative to it. */
function files(folder) {
  const found = [];
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) found.push(...files(path).map((inner) => join(name, inner)));
    else found.push(name);
  }
  return found.sort();
}

/** Where the names that a source file imports come from: `{name: {module, member}}`; no member is the whole module. */
function imports(source, file) {
  const found = {};
  for (const statement of source.statements) {
    if (!ts.isImportDeclaration(statement) || !statement.importClause?.namedBindings) continue;
    const module = join(dirname(file), statement.moduleSpecifier.text);
    const bindings = statement.importClause.namedBindings;
    if (ts.isNamespaceImport(bindings)) found[bindings.name.text] = { module };
    else {
      for (const element of bindings.elements) {
        found[element.name.text] = { module, member: (element.propertyName ?? element.name).text };
      }
    }
  }
  return found;
}

/** The text of a path, `{}` standing for each parameter: a string, or a template that may be tagged. */
function pathOf(node) {
  if (ts.isTaggedTemplateExpression(node)) node = node.template;
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return node.text;
  if (ts.isTemplateExpression(node)) {
    return node.head.text + node.templateSpans.map((span) => `{}${span.literal.text}`).join("");
  }
  throw new Error(`the path of a call is written in a new way: ${node.getText()}`);
}

/** The call of the client within a method: `this._client.get(path, …)`. */
function callIn(method) {
  let found;
  const visit = (node) => {
    if (
      ts.isCallExpression(node) &&
      ts.isPropertyAccessExpression(node.expression) &&
      node.expression.expression.getText() === "this._client" &&
      /^(get|post|put|patch|delete|getAPIList)$/.test(node.expression.name.text)
    ) {
      found ??= node;
    }
    ts.forEachChild(node, visit);
  };
  visit(method);
  return found;
}

/** The routes of a package and a module that names the type of each one's answer. */
function read(name) {
  const root = join(here, "node_modules", name, "src");
  const beta = join(root, "resources", "beta");
  const modules = new Map();
  const routes = [];
  const lines = [];
  const moduleName = (module) => {
    if (!modules.has(module)) modules.set(module, `M${modules.size}`);
    return modules.get(module);
  };
  /** A type as the generated module writes it. */
  const typeText = (node, own, known) => {
    if (ts.isTypeReferenceNode(node)) {
      const inner = node.typeArguments?.map((argument) => typeText(argument, own, known));
      const written = node.typeName.getText();
      const suffix = inner ? `<${inner.join(", ")}>` : "";
      if (written === "Array") return `Array${suffix}`;
      const [first, ...rest] = written.split(".");
      const from = known[first] ?? { module: own, member: first };
      const path = [from.member, ...rest].filter(Boolean).join(".");
      return `${moduleName(from.module)}.${path}${suffix}`;
    }
    if (ts.isUnionTypeNode(node)) return node.types.map((type) => typeText(type, own, known)).join(" | ");
    if (node.kind === ts.SyntaxKind.LiteralType || ts.isToken(node)) return node.getText();
    throw new Error(`an answer's type is written in a new way: ${node.getText()}`);
  };
  for (const file of files(beta)) {
    if (!file.endsWith(".ts") || file.endsWith("index.ts") || !parts.test(file)) continue;
    const text = readFileSync(join(beta, file), "utf8");
    const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
    const own = join("resources/beta", file.slice(0, -".ts".length));
    const known = imports(source, own);
    for (const type of source.statements.filter(ts.isClassDeclaration)) {
      for (const method of type.members.filter(ts.isMethodDeclaration)) {
        const call = callIn(method);
        if (!call || !method.type) continue;
        const verb = call.expression.name.text;
        const path = pathOf(call.arguments[0]);
        const route = { method: verb === "getAPIList" ? "GET" : verb.toUpperCase(), path: path.split("?")[0], kind: "json" };
        let answer;
        if (verb === "getAPIList") {
          // The page's class is the second argument; what its rows are, the second argument of the method's type.
          const page = call.arguments[1];
          const pageName = (page.expression ?? page).getText();
          const item = typeText(method.type.typeArguments[1], own, known);
          answer = `${moduleName("core/pagination")}.${pageName}Response<${item}>`;
        } else {
          let type = method.type.typeArguments[0];
          const generic = ts.isTypeReferenceNode(type) ? type.typeName.getText() : "";
          if (generic === "Response") route.kind = "bytes";
          else if (generic === "Stream") {
            route.kind = "stream";
            type = type.typeArguments[0];
          }
          if (route.kind !== "bytes") answer = typeText(type, own, known);
        }
        if (answer) {
          route.schema = `Answer${lines.length}`;
          lines.push(`export type ${route.schema} = ${answer};`);
        }
        routes.push(route);
      }
    }
  }
  if (routes.length === 0) throw new Error(`no routes found in ${root}`);
  lines.push(`export type ErrorAnswer = ${moduleName("resources/beta/beta")}.BetaErrorResponse;`);
  const head = [...modules].map(([module, alias]) => `import type * as ${alias} from "${name}/${module}";`);
  return { routes, module: [...head, ...lines].join("\n") };
}

/** The schemas of everything that a module exports. */
function schemas(module) {
  // Below this folder, so that the packages are found.
  const folder = mkdtempSync(join(here, "node_modules", ".types-"));
  try {
    const path = join(folder, "answers.ts");
    writeFileSync(path, module);
    const options = { module: "esnext", moduleResolution: "bundler", target: "es2022", strict: true, skipLibCheck: true };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["answers.ts"] }));
    const generator = createGenerator({
      path,
      tsconfig: join(folder, "tsconfig.json"),
      type: "*",
      expose: "all",
      additionalProperties: false,
      skipTypeCheck: false,
      // What a field means is of no use here, and most of the text.
      jsDoc: "none",
    });
    return generator.createSchema("*").definitions;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const result = {};
for (const name of packages) {
  const { routes, module } = read(name);
  const { version } = JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8"));
  result[name] = { version, routes, definitions: schemas(module) };
}
process.stdout.write(JSON.stringify({ packages: result }));
