/**
 * Builds the peers of Rust and Go outside the tree, once for each version of their sources: under
 * `codio-network/interop` in the user's cache.
 */
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"

interface Toolchain {
  readonly command: string
  readonly version: ReadonlyArray<string>
  readonly build: (source: string, cache: string) => {
    readonly args: ReadonlyArray<string>
    readonly env: Record<string, string>
    readonly program: string
  }
}

const toolchains: { readonly rust: Toolchain; readonly go: Toolchain } = {
  rust: {
    command: "cargo",
    version: ["--version"],
    build: (_, cache) => ({
      args: ["build", "--quiet", "--jobs", "2"],
      // Shared by all versions of the sources, so that the dependencies are built once.
      env: { CARGO_TARGET_DIR: join(cache, "rust-target") },
      program: join(cache, "rust-target", "debug", "codio-interop-rust")
    })
  },
  go: {
    command: "go",
    version: ["version"],
    build: (source) => ({
      args: ["build", "-p", "2", "-o", "peer", "."],
      env: { CGO_ENABLED: "0" },
      program: join(source, "peer")
    })
  }
}

/** The toolchains that this machine lacks. */
export const missing = (): ReadonlyArray<string> =>
  Object.values(toolchains).map(({ command }) => command).filter((command) => {
    const { version } = Object.values(toolchains).find((one) => one.command === command)!
    return spawnSync(command, version, { stdio: "ignore" }).status !== 0
  })

/** The program of a peer, built if need be. */
export const build = (kind: "rust" | "go"): Effect.Effect<string, Error> =>
  Effect.gen(function*() {
    const { command, build, version } = toolchains[kind]
    const tree = join(import.meta.dirname, kind)
    const files = readdirSync(tree, { recursive: true, encoding: "utf8" }).sort()
      .filter((file) => /\.(rs|go|mod|sum)$|^Cargo\.toml$/.test(file))
    const hash = createHash("sha256").update(spawnSync(command, version, { encoding: "utf8" }).stdout)
    for (const file of files) hash.update(`\n${file}\n`).update(readFileSync(join(tree, file)))
    const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "codio-network", "interop")
    const home = join(cache, `${kind}-${hash.digest("hex").slice(0, 16)}`)
    const program = join(home, "peer")
    if (existsSync(program)) return program

    // Its own copy of the sources: cargo writes a lockfile beside them.
    const source = join(cache, `${kind}-source-${process.pid}`)
    yield* Effect.gen(function*() {
      for (const file of files) cpSync(join(tree, file), join(source, file))
      const { args, env, program: built } = build(source, cache)
      yield* run(["nice", "-n", "15", command, ...args], source, env)
      mkdirSync(home, { recursive: true })
      // Moved into position at once, since another run may look for the program meanwhile.
      cpSync(built, `${program}.${process.pid}`)
      renameSync(`${program}.${process.pid}`, program)
    }).pipe(Effect.ensuring(Effect.sync(() => rmSync(source, { recursive: true, force: true }))))
    return program
  })

// internal ------------------------------------------------------------------------------------------------------------

const run = ([command = "", ...args]: ReadonlyArray<string>, cwd: string, env: Record<string, string>) =>
  Effect.callback<void, Error>((resume) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "inherit", "inherit"]
    })
    child.on("error", (cause) => resume(Effect.fail(cause)))
    child.on(
      "exit",
      (code) => resume(code === 0 ? Effect.void : Effect.fail(new Error(`${args.join(" ")} ended with ${code}`)))
    )
    return Effect.sync(() => child.kill())
  })
