/**
 * The directory that a node's files are in.
 */
import { Effect, FileSystem, Path, type PlatformError } from "effect"

/**
 * Creates the directory and those above it (0700) where they are missing. Fails where a file has the name, and with the
 * system's reason.
 */
export const make: (
  directory: string
) => Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function*(directory) {
    const fs = yield* FileSystem.FileSystem
    const parent = (yield* Path.Path).dirname(directory)
    // Node's own recursive form never ends where the system answers that a parent does not exist, as below /proc.
    const create = fs.makeDirectory(directory, { mode: 0o700 })
    yield* create.pipe(
      Effect.catchReason(
        "PlatformError",
        "NotFound",
        (_, missing) =>
          Effect.flatMap(
            fs.exists(parent),
            (exists) => exists || parent === directory ? Effect.fail(missing) : Effect.andThen(make(parent), create)
          )
      ),
      Effect.catchReason(
        "PlatformError",
        "AlreadyExists",
        (_, taken) =>
          Effect.flatMap(fs.stat(directory), ({ type }) => type === "Directory" ? Effect.void : Effect.fail(taken))
      )
    )
  }
)

/**
 * What makes the directory unfit for a private key, with the remedy: every user of the machine may write to it, and so
 * could put another key there. Undefined when it is fit.
 */
export const problemOf = (
  directory: string
): Effect.Effect<string | undefined, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Effect.map(Effect.flatMap(FileSystem.FileSystem, (fs) => fs.stat(directory)), ({ mode }) => {
    // Windows has no such bits, and node reports them as set.
    if (process.platform === "win32" || (mode & 0o002) === 0) return undefined
    const octal = (mode & 0o7777).toString(8).padStart(4, "0")
    return `others may write to it (mode ${octal}); run: chmod 700 ${directory}`
  })
