"""Makes the tables; a larger application has Alembic for this."""

from models import Base, engine

Base.metadata.create_all(engine)
