/**
 * `npm run lock`: writes package-lock.json anew and completes it for every platform.
 *
 * npm leaves packages of other platforms out of a lockfile when it could not see them while writing it, and `npm ci`
 * then refuses the file (npm/cli#4828). They are optional, have exact versions and carry their platform in their name,
 * so they can be written without a look-up. Such an entry has no integrity until npm writes it on a machine that sees
 * the package.
 */
import { spawnSync } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { npm } from "./setup.mjs"

const file = new URL("../package-lock.json", import.meta.url)
if (process.argv.includes("--fresh")) rmSync(file, { force: true })
const [command, ...args] = npm(["install", "--package-lock-only", "--loglevel=error"])
const result = spawnSync(command, args, { stdio: "inherit", cwd: new URL("..", import.meta.url) })
if (result.status !== 0) process.exit(result.status ?? 1)

const lock = JSON.parse(readFileSync(file, "utf8"))
const added = []
for (const [path, entry] of Object.entries({ ...lock.packages })) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`
    if (
      lock.packages[key] !== undefined || lock.packages[`${path}/${key}`] !== undefined ||
      !/^\d+\.\d+\.\d+$/.test(version)
    ) continue
    lock.packages[key] = { version, ...platform(name), ...(entry.dev === true ? { dev: true } : {}), optional: true }
    added.push(name)
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en")))
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(
  added.length === 0
    ? "package-lock.json is complete"
    : `package-lock.json: added ${added.length} packages of other platforms`
)

// internal ------------------------------------------------------------------------------------------------------------

/** @param {string} name */
function platform(name) {
  const words = name.slice(name.lastIndexOf("/") + 1).split("-")
  const os = ["aix", "android", "darwin", "freebsd", "linux", "openharmony", "sunos", "win32"].find((os) =>
    words.includes(os)
  )
  const cpu = ["arm", "arm64", "ia32", "loong64", "ppc64", "riscv64", "s390x", "x64"].find((cpu) => words.includes(cpu))
  const libc = words.some((word) => word.startsWith("musl"))
    ? "musl"
    : words.includes("gnu") || words.includes("glibc")
    ? "glibc"
    : undefined
  if (os === undefined || cpu === undefined) throw new Error(`package-lock.json: no platform in the name ${name}`)
  return { cpu: [cpu], os: [os], ...(libc === undefined ? {} : { libc: [libc] }) }
}
