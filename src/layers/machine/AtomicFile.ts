/**
 * Files that are written whole or not at all.
 */
import { Effect, FileSystem, Path, type PlatformError, Predicate } from "effect"

export interface AtomicFileOptions {
  /** Where the bytes are written first, in the same directory. */
  readonly temporary: string
  /** `wx` fails when the temporary file is there, `w` writes over it. */
  readonly flag: "w" | "wx"
}

/**
 * Writes the bytes to the temporary file (0600), syncs it, renames it, and syncs the directory: after a crash or a
 * power cut the file is the old one or the new one, and the new one once the effect has ended. A write that fails
 * removes the temporary file, so that a full disk gets its room back.
 */
export const write = Effect.fnUntraced(function*(
  file: string,
  bytes: Uint8Array,
  { flag, temporary }: AtomicFileOptions
): Effect.fn.Return<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const writeTemporary = Effect.scoped(Effect.gen(function*() {
    const handle = yield* fs.open(temporary, { flag, mode: 0o600 })
    yield* handle.writeAll(bytes)
    // Before the rename, or a power cut may leave an empty file under the name.
    yield* handle.sync
  }))
  yield* Effect.andThen(writeTemporary, fs.rename(temporary, file)).pipe(
    Effect.onError(() => Effect.ignore(fs.remove(temporary, { force: true }))) // the error that matters is the first
  )
  yield* syncDirectory(path.dirname(file))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Makes the names in the directory durable. A directory cannot be opened on Windows, where a rename is durable. */
const syncDirectory = (
  directory: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem> =>
  process.platform === "win32"
    ? Effect.void
    : FileSystem.FileSystem.pipe(
      Effect.flatMap((fs) => Effect.scoped(Effect.flatMap(fs.open(directory, { flag: "r" }), (handle) => handle.sync))),
      Effect.catchIf((error) => isUnsupported(error.reason.cause), () => Effect.void)
    )

/** Some network file systems refuse to sync a directory. The file is whole there as well. */
const isUnsupported = (cause: unknown): boolean =>
  Predicate.hasProperty(cause, "code") && (cause.code === "EINVAL" || cause.code === "ENOTSUP")
