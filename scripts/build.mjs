/**
 * `npm run build`: compiles src to dist. The directory is made anew, so that nothing of an older build is packed.
 */
import { spawnSync } from "node:child_process"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { setUp } from "./setup.mjs"

const root = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..")
const node = setUp()
rmSync(join(root, "dist"), { recursive: true, force: true })
const result = spawnSync(node, [join(root, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.build.json"], {
  cwd: root,
  stdio: "inherit"
})
process.exit(result.status ?? 1)
