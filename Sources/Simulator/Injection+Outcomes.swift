internal import MirrorCore

extension Injection {
    /// What can become of one I/O call: every row of the table "Errors" (3-correctness), with every error number
    /// of the row, and what it did all the same.
    struct Outcome {
        var name: String
        var isBlockDevice = false
        var trouble: (DiskOperation) -> Pilot.Trouble

        private static let media: [Int32] = [5, 121, 61, 84]  // EIO, EREMOTEIO, ENODATA, EILSEQ
        private static let full: [Int32] = [28, 122, 27]  // ENOSPC, EDQUOT, EFBIG
        private static let transient: [Int32] = [11, 4, 12, 16]  // EAGAIN, EINTR, ENOMEM, EBUSY
        private static let unsupported: [Int32] = [22, 95]  // EINVAL, EOPNOTSUPP
        private static let gone: [Int32] = [6, 19, 9, 107, 103, 116]
        private static let all = media + full + transient + unsupported + gone

        static func all(of kind: DiskOperation.Kind) -> [Outcome] {
            switch kind {
            case .read: errors(media + transient + unsupported + gone, [.none]) + transfers + [vanishing]
            case .queryAllocation, .compare, .checksum, .findData:
                errors(media + transient + unsupported + gone, [.none]) + [vanishing]
            case .write: errors(all, [.none, .torn, .whole]) + transfers + pulled + [vanishing]
            case .deallocate, .zero: errors(all, [.none, .torn, .whole]) + pulled + [vanishing]
            case .flush: errors(media + full + transient + unsupported + gone, [.none]) + lossy + [vanishing]
            case .writeMetadata: errors(all, [.none, .torn, .whole]) + pulled + [vanishing]
            }
        }

        /// For all plexes alike.
        static var common: [Outcome] { errors([5, 28, 11, 22, 6], [.none, .torn]) }
        /// Shorter than the pause before another try, longer than all tries.
        static let commonMilliseconds: [UInt64] = [1, 150, 3000]

        private static func errors(_ numbers: [Int32], _ effects: [SimulatedDisk.Landing]) -> [Outcome] {
            numbers.flatMap { number in
                effects.map { effect in
                    Outcome(name: "fails with \(number) (\(effect))") { operation in
                        Pilot.Trouble(plan: .fail(errorNumber: number, effect: changes(operation) ? effect : .none))
                    }
                }
            }
        }

        private static func changes(_ operation: DiskOperation) -> Bool {
            switch operation.kind {
            case .write, .deallocate, .zero, .writeMetadata: true
            case .read, .flush, .queryAllocation, .compare, .checksum, .findData: false
            }
        }

        /// Legal short transfers, of whole blocks and of less; and none at all: the backing ends here.
        private static var transfers: [Outcome] {
            [
                Outcome(name: "moves all but a block") { operation in
                    Pilot.Trouble(plan: .short(operation.length - Limits.blockBytes))
                },
                Outcome(name: "moves one sector") { _ in
                    Pilot.Trouble(plan: .short(UInt64(Geometry.sectorBytes)))
                },
                Outcome(name: "moves nothing") { _ in Pilot.Trouble(plan: .short(0)) },
            ]
        }

        /// A disk that was pulled while it was open.
        private static var pulled: [Outcome] {
            [
                Outcome(name: "fails with 28 on a block device", isBlockDevice: true) { _ in
                    Pilot.Trouble(plan: .fail(errorNumber: 28, effect: .none))
                }
            ]
        }

        private static var lossy: [Outcome] {
            [5, 28].map { number in
                Outcome(name: "fails with \(number) and loses data") { _ in
                    Pilot.Trouble(plan: .loseFlush(errorNumber: number))
                }
            }
        }

        private static var vanishing: Outcome {
            Outcome(name: "finds the disk gone for good") { _ in
                Pilot.Trouble(plan: .fail(errorNumber: 6, effect: .none), vanishes: true)
            }
        }
    }
}
