//! How the types of the model are written into columns: numbers as themselves, enums as the numbers their docs give.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

use crate::mirror::{AllowRedirects, MirrorId, ScanProtocol};
use crate::time::{FileTime, Timestamp};

impl ToSql for MirrorId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for MirrorId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<MirrorId> {
        u32::column_result(value).map(MirrorId)
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Timestamp> {
        i64::column_result(value).map(Timestamp)
    }
}

impl ToSql for FileTime {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for FileTime {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<FileTime> {
        i64::column_result(value).map(FileTime)
    }
}

impl ToSql for ScanProtocol {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self {
            ScanProtocol::Rsync => 0_i64,
            ScanProtocol::Ftp => 1,
            ScanProtocol::Http => 2,
        }))
    }
}

impl FromSql for ScanProtocol {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<ScanProtocol> {
        match value.as_i64()? {
            0 => Ok(ScanProtocol::Rsync),
            1 => Ok(ScanProtocol::Ftp),
            2 => Ok(ScanProtocol::Http),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

impl ToSql for AllowRedirects {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self {
            AllowRedirects::Default => 0_i64,
            AllowRedirects::Allowed => 1,
            AllowRedirects::Disallowed => 2,
        }))
    }
}

impl FromSql for AllowRedirects {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<AllowRedirects> {
        match value.as_i64()? {
            0 => Ok(AllowRedirects::Default),
            1 => Ok(AllowRedirects::Allowed),
            2 => Ok(AllowRedirects::Disallowed),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}
