/**
 * `npm run build`: compiles the library to dist, and bundles the program. The directory is made anew, so that no file
 * of an older build is packed.
 */
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { setUp } from "./setup.mjs"

const root = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..")
const node = setUp()
rmSync(join(root, "dist"), { recursive: true, force: true })
run("node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json")
run("scripts/bundle.mjs")

// An import of effect's index loads all of effect: a third more memory, and 60 ms at each start. Each name there is a
// module of its own.
for (const file of readdirSync(join(root, "dist"), { recursive: true })) {
  if (!file.endsWith(".js") || dirname(file) === "cli") continue
  const path = join(root, "dist", file)
  const source = readFileSync(path, "utf8")
  const direct = source.replace(
    /^import \{([^}]+)\} from "(effect(?:\/[a-z]+)?)";$/gm,
    (_, names, entry) =>
      names.split(",").map((name) => {
        const [module, local = module] = name.trim().split(/\s+as\s+/)
        return `import * as ${local} from "${entry}/${module}";`
      }).join(" ")
  )
  if (direct !== source) writeFileSync(path, direct)
}

// internal ------------------------------------------------------------------------------------------------------------

function run(script, ...args) {
  const { status } = spawnSync(node, [join(root, script), ...args], { cwd: root, stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
}
