# What batch_backfill adds: a role for jobs of S3 Batch Operations, and a bucket for their reports.
# Mocked, as main.tftest.hcl is.

mock_provider "aws" {
  source = "./tests"
}

override_resource {
  target = aws_s3_bucket.batch
  values = {
    id  = "the-bucket-batch"
    arn = "arn:aws:s3:::the-bucket-batch"
  }
}

override_data {
  target = data.aws_iam_policy_document.uploads
  values = { json = "{\"Resource\":[\"arn:aws:s3:::the-bucket\",\"arn:aws:s3:::the-bucket/*\"]}" }
}

override_data {
  target = data.aws_iam_policy_document.trust
  values = { json = "{\"Id\":\"trust\"}" }
}

override_data {
  target = data.aws_iam_policy_document.function
  values = { json = "{\"Id\":\"function\"}" }
}

# As in main.tftest.hcl.
variables {
  aws_region     = null
  environment    = null
  project_name   = null
  lambda_runtime = null
  batch_backfill = true
}

# 48 characters, of which the names of batch_backfill allow 47. The first run, as in identity.tftest.hcl.
run "a_name_too_long_for_its_bucket_is_refused" {
  command = plan

  variables {
    project_name = "file-metadata-with-a-name-one-too-long-here"
  }

  expect_failures = [terraform_data.stack]
}

run "nothing_unless_asked_for" {
  command = apply

  variables {
    batch_backfill = null
  }

  assert {
    condition     = length(aws_s3_bucket.batch) + length(aws_s3_bucket_public_access_block.batch) + length(aws_s3_bucket_policy.batch) + length(aws_iam_role.batch) + length(aws_iam_role_policy.batch) == 0
    error_message = "Batch: without batch_backfill there is no role and no bucket for it."
  }

  assert {
    condition     = output.batch_role_arn == null && output.batch_bucket_name == null
    error_message = "Batch: the outputs say that there is none."
  }
}

run "with_batch_backfill" {
  command = apply

  assert {
    condition = jsonencode(jsondecode(aws_iam_role.batch[0].assume_role_policy)) == jsonencode({
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Action    = "sts:AssumeRole"
        Principal = { Service = "batchoperations.s3.amazonaws.com" }
        Condition = { StringEqualsIfExists = { "aws:SourceAccount" = local.account_id } }
      }]
    })
    error_message = "Batch: only S3 Batch Operations can take the role, for no other account."
  }

  assert {
    condition = aws_iam_role_policy.batch[0].role == aws_iam_role.batch[0].id && jsonencode(jsondecode(aws_iam_role_policy.batch[0].policy)) == jsonencode({
      Version = "2012-10-17"
      Statement = [
        { Sid = "ListUploads", Effect = "Allow", Action = "s3:PutInventoryConfiguration", Resource = "arn:aws:s3:::the-bucket" },
        { Sid = "InvokeFunction", Effect = "Allow", Action = "lambda:InvokeFunction", Resource = "arn:aws:lambda:us-east-1:123456789012:function:the-bucket" },
        { Sid = "WriteReports", Effect = "Allow", Action = "s3:PutObject", Resource = "arn:aws:s3:::the-bucket-batch/*" },
      ]
    })
    error_message = "Batch: the role may list the uploads, invoke this function, and write reports: it reads and writes no upload."
  }

  assert {
    condition     = jsonencode([for s in data.aws_iam_policy_document.function.statement : s.actions if s.sid == "WriteRows"]) == jsonencode([["dynamodb:PutItem", "dynamodb:Query"]])
    error_message = "Batch: the function may look whether a version has its row."
  }

  assert {
    condition     = aws_iam_role.batch[0].permissions_boundary == var.permissions_boundary_arn
    error_message = "Batch: permissions_boundary_arn bounds this role too."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.batch[0].bucket == "the-bucket-batch",
      aws_s3_bucket_public_access_block.batch[0].block_public_acls,
      aws_s3_bucket_public_access_block.batch[0].block_public_policy,
      aws_s3_bucket_public_access_block.batch[0].ignore_public_acls,
      aws_s3_bucket_public_access_block.batch[0].restrict_public_buckets,
    ])
    error_message = "Batch: the public neither reads nor writes the reports."
  }

  assert {
    condition = aws_s3_bucket_policy.batch[0].bucket == "the-bucket-batch" && jsonencode(jsondecode(aws_s3_bucket_policy.batch[0].policy)) == jsonencode({
      Resource = ["arn:aws:s3:::the-bucket-batch", "arn:aws:s3:::the-bucket-batch/*"]
    })
    error_message = "Batch: the reports' bucket has the policy of the uploads', for itself: plain HTTP is denied."
  }

  assert {
    condition     = aws_s3_bucket.batch[0].bucket == "${local.name}-batch" && aws_iam_role.batch[0].name == "${local.name}-batch" && aws_s3_bucket.batch[0].force_destroy
    error_message = "Batch: both names come from the stack's own, and destroy may delete reports."
  }

  assert {
    condition     = output.batch_role_arn == aws_iam_role.batch[0].arn && output.batch_bucket_name == "the-bucket-batch"
    error_message = "Batch: the outputs name the role and the bucket."
  }
}
