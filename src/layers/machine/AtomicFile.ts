/**
 * Files that are written whole or not at all.
 */
import { Effect, FileSystem, type PlatformError } from "effect"

export interface AtomicFileOptions {
  /** Where the bytes are written first, in the same directory. */
  readonly temporary: string
  /** `wx` fails when the temporary file is there, `w` writes over it. */
  readonly flag: "w" | "wx"
}

/**
 * Writes the bytes to the temporary file (0600), syncs it, and renames it. After a crash or a power cut the file is the
 * old one or the new one. The directory is not synced: until the system does so of its own accord, a power cut may
 * bring the old file back.
 */
export const write = Effect.fnUntraced(function*(
  file: string,
  bytes: Uint8Array,
  { flag, temporary }: AtomicFileOptions
): Effect.fn.Return<void, PlatformError.PlatformError, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  yield* Effect.scoped(Effect.gen(function*() {
    const handle = yield* fs.open(temporary, { flag, mode: 0o600 })
    yield* handle.writeAll(bytes)
    // Before the rename, or a power cut may leave an empty file under the name.
    yield* handle.sync
  }))
  yield* fs.rename(temporary, file)
})
