/**
 * What a bare clone needs before anything can run: the dependencies, and Node 24. Plain JavaScript that Node 20
 * understands, since it runs first.
 */
import { spawnSync } from "node:child_process"
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** The command line of the npm that runs this script, or of the one on the path. */
export const npm = (args) => {
  const cli = process.env.npm_execpath
  return cli !== undefined && /npm-cli\.c?js$/.test(cli) ? [process.execPath, cli, ...args] : ["npm", ...args]
}

/**
 * Installs the dependencies if they are missing or older than the lockfile, and answers which Node to go on with. Ends
 * the process with one line and exit code 1 if there is none.
 */
export const setUp = () => {
  install()
  const node = chooseNode(root, process.versions.node, process.execPath)
  if (node !== undefined) return node
  fail(
    `Node 24 is missing (this is ${process.version}; install scripts are disabled?): run "npm rebuild node --ignore-scripts=false", or install Node 24 from https://nodejs.org`
  )
}

/** The Node that the project brings, else the present one if it is new enough. */
export const chooseNode = (directory, version, present) => {
  const own = join(directory, "node_modules", ".bin", process.platform === "win32" ? "node.cmd" : "node")
  if (existsSync(own)) return own
  return isNewEnough(version) ? present : undefined
}

/** Whether this version of Node runs the program as it is: TypeScript without a flag, and what effect needs. */
export const isNewEnough = (version) => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > 22 || (major === 22 && minor >= 19)
}

/**
 * Whether node_modules is complete and not older than the lockfile. npm writes node_modules/.package-lock.json last. A
 * link to a directory kept elsewhere is taken as it is, since `npm ci` would empty that one.
 */
export const isInstalled = (directory) => {
  const lock = join(directory, "package-lock.json")
  const modules = join(directory, "node_modules")
  const installed = join(modules, ".package-lock.json")
  if (lstatSync(modules, { throwIfNoEntry: false })?.isSymbolicLink() === true) return true
  return existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs
}

// internal ------------------------------------------------------------------------------------------------------------

const fail = (line) => {
  console.error(line)
  process.exit(1)
}

function install() {
  if (isInstalled(root)) return
  const unlock = lock()
  try {
    if (isInstalled(root)) return
    console.error("Installing the dependencies (npm ci) ...")
    const [command, ...args] = npm(["ci", "--loglevel=error"])
    const result = spawnSync(command, args, {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      shell: process.platform === "win32"
    })
    if (result.signal !== null) process.exit(130)
    if (result.status === 0) return
    fail(`${result.stdout ?? ""}${result.stderr ?? ""}${result.error?.message ?? ""}\nnpm ci failed: see above`.trim())
  } finally {
    unlock()
  }
}

/** Two terminals may start on the same bare clone: the second waits for the first, unless the first has died. */
function lock() {
  const directory = join(root, ".cache", "setup.lock")
  mkdirSync(dirname(directory), { recursive: true })
  for (let said = false;; wait(200)) {
    try {
      mkdirSync(directory)
      writeFileSync(join(directory, "pid"), String(process.pid))
      const release = () => rmSync(directory, { recursive: true, force: true })
      process.once("exit", release)
      return () => {
        process.removeListener("exit", release)
        release()
      }
    } catch (error) {
      if (error.code !== "EEXIST") throw error
    }
    if (!said) console.error("Waiting for another npm ci in this directory ...")
    said = true
    if (isAbandoned(directory)) rmSync(directory, { recursive: true, force: true })
  }
}

function isAbandoned(directory) {
  try {
    // The owner writes its pid right after it made the directory.
    const pid = join(directory, "pid")
    if (!existsSync(pid)) return Date.now() - statSync(directory).mtimeMs > 2000
    process.kill(Number(readFileSync(pid, "utf8")), 0)
    return false
  } catch (error) {
    return error.code === "ESRCH"
  }
}

function wait(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}
