/**
 * `npm run docs:api`: writes the API reference of the entry points to `api/`, drawn from their doc comments. With
 * `--check` it writes nothing.
 *
 * Errors are: an export without a doc comment, a member of a service without one, a member of `Network` without an
 * example, and a link that leads nowhere. The fields of schemas need no comment of their own: their class has one.
 */
import { registerHooks } from "node:module"
import { join } from "node:path"
import process from "node:process"

// typedoc works on the compiler's JavaScript, which TypeScript 7 does not have. It gets a TypeScript 6 of its own.
registerHooks({ resolve: (name, context, next) => next(name === "typescript" ? "typescript6" : name, context) })
const { default: ts } = await import("typescript6")
const { Application, Converter, ReflectionKind } = await import("typedoc")

const root = join(import.meta.dirname, "..")
const entryPoints = {
  "codio-network": "src",
  "codio-network/layers": "src/layers",
  "codio-network/testing": "src/testing"
}

// The first comment of a file describes the whole file, which typedoc believes only of one with a tag.
const readFile = ts.sys.readFile
ts.sys.readFile = (path, encoding) => {
  const text = readFile(path, encoding)
  if (!path.startsWith(join(root, "src")) || !text?.startsWith("/**")) return text
  const name = Object.entries(entryPoints).find(([, folder]) => path === join(root, folder, "index.ts"))?.[0]
  return text.replace(/\s*\*\//, `\n * ${name === undefined ? "@packageDocumentation" : `@module ${name}`}\n */`)
}

const app = await Application.bootstrap({
  entryPoints: Object.values(entryPoints).map((folder) => join(root, folder, "index.ts")),
  tsconfig: join(root, "tsconfig.build.json"),
  name: "codio-network",
  readme: "none",
  disableSources: true,
  excludeExternals: true,
  excludeInternal: true,
  // `tsc` has looked for them before.
  skipErrorChecking: true,
  validation: { invalidLink: true, notDocumented: false, notExported: false, rewrittenLink: true }
})
const services = new Set()
app.converter.on(
  Converter.EVENT_RESOLVE_BEGIN,
  ({ project }) => project.getReflectionsByKind(ReflectionKind.Class).forEach(showMembers)
)
const project = await app.convert()
if (project === undefined) process.exit(1)
app.validate(project)
for (const reflection of project.getReflectionsByKind(ReflectionKind.All)) {
  if (!isPublic(reflection)) continue
  const comments = commentsOf(reflection)
  const name = reflection.getFullName()
  if (comments.length === 0) app.logger.error(`${name} has no doc comment`)
  if (name.startsWith("codio-network.Network.") && !comments.some((comment) => comment.getTag("@example"))) {
    app.logger.error(`${name} has no example`)
  }
}
if (app.logger.errorCount + app.logger.warningCount > 0) process.exit(1)
if (!process.argv.includes("--check")) await app.generateDocs(project, join(root, "api"))

// internal ------------------------------------------------------------------------------------------------------------

/**
 * Shows the members of `class Name extends Context.Service<Name, { members }>` as members of the class, where a reader
 * looks for them.
 */
function showMembers(reflection) {
  const members = reflection.extendedTypes?.[0]?.typeArguments?.[1]
  if (members?.type !== "reflection") return
  services.add(reflection)
  delete reflection.extendedTypes
  for (const child of reflection.children?.filter(({ kind }) => kind === ReflectionKind.Constructor) ?? []) {
    reflection.project.removeReflection(child)
  }
  for (const child of members.declaration.children ?? []) {
    child.parent = reflection
    reflection.addChild(child)
  }
}

function isPublic({ kind, parent }) {
  if (parent === undefined || kind === ReflectionKind.Reference || kind === ReflectionKind.TypeLiteral) return false
  return parent.kindOf(ReflectionKind.Module | ReflectionKind.Namespace | ReflectionKind.Project) ||
    services.has(parent)
}

/** The comments of the reflection, of a function's signatures, and of other declarations with the same name. */
function commentsOf(reflection) {
  return (reflection.parent.children ?? [])
    .filter(({ name }) => name === reflection.name)
    .flatMap((one) => [one, ...(one.signatures ?? []), ...(one.type?.declaration?.signatures ?? [])])
    .flatMap(({ comment }) => comment ?? [])
}
