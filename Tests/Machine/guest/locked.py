"""The tests of Tests/RealClients about locked memory, which need a capability that containers do not have."""

from guest import main
from test_supervisor import LockedMemory

__all__ = ["LockedMemory"]

if __name__ == "__main__":
    main()
