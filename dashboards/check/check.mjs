// Holds dashboards against Grafana's own types, their PromQL against Prometheus' own grammar and their LogQL against that of Grafana's Loki:
// node check.mjs MODULES DASHBOARD…
// MODULES is where package.json's packages are installed. Says every fault, and ends with 1 where there is one.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, ...files] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), "package.json"));
const ts = require("typescript");
const grammar = async (name) => (await import(pathToFileURL(require.resolve(name)))).parser;
const grammars = {
  prometheus: ["PromQL", await grammar("@prometheus-io/lezer-promql")],
  loki: ["LogQL", await grammar("@grafana/lezer-logql")],
};

// Words stand for members of enums; what Grafana leaves out when it reads a dashboard may be missing.
const prelude = `import type { Dashboard } from "@grafana/schema";
type Written<T> = T extends string ? \`\${T}\` : T extends (infer E)[] ? Written<E>[] : T extends object ? { [K in keyof T]: Written<T[K]> } : T;
`;

const faults = [];
const named = new Map();
for (const file of files) {
  const text = fs.readFileSync(file, "utf8").trim();
  named.set(path.join(modules, `${path.basename(file, ".json")}.ts`), `${prelude}(${text} satisfies Partial<Written<Dashboard>>);`);
  for (const panel of JSON.parse(text).panels) {
    for (const { expr, datasource } of panel.targets.filter((target) => target.expr)) {
      const [language, parser] = grammars[datasource.type];
      // As Grafana makes of its variables.
      const query = expr.replaceAll(/\$__(rate_interval|auto)/g, "1m").replaceAll(/\$\w+/g, ".+");
      parser.parse(query).iterate({
        enter: (node) => {
          if (node.type.isError) faults.push(`${file}, ${panel.title}: no ${language} at ${node.from}: ${query}`);
        },
      });
    }
  }
}

const options = {
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  types: [],
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
};
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists, readFile } = host;
host.fileExists = (name) => named.has(name) || fileExists(name);
host.readFile = (name) => named.get(name) ?? readFile(name);
host.getSourceFile = (name, ...rest) =>
  named.has(name) ? ts.createSourceFile(name, named.get(name), ...rest) : getSourceFile(name, ...rest);
const program = ts.createProgram([...named.keys()], options, host);
for (const { file, start, messageText } of ts.getPreEmitDiagnostics(program)) {
  const at = file ? `${path.basename(file.fileName, ".ts")}:${file.getLineAndCharacterOfPosition(start).line - 1}` : "";
  faults.push(`${at}: ${ts.flattenDiagnosticMessageText(messageText, "\n  ")}`);
}
for (const fault of faults) console.error(fault);
console.log(`${files.length} dashboards, ${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);
