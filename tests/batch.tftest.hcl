# What batch_backfill adds: a role for jobs of S3 Batch Operations.
# Mocked, as main.tftest.hcl is.

mock_provider "aws" {
  source = "./tests"
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

# 49 characters, of which the role of batch_backfill allows 48. The first run, as in identity.tftest.hcl.
run "a_name_too_long_for_its_role_is_refused" {
  command = plan

  variables {
    project_name = "file-metadata-with-a-name-one-too-long-here1"
  }

  expect_failures = [terraform_data.stack]
}

run "nothing_unless_asked_for" {
  command = apply

  variables {
    batch_backfill = null
  }

  assert {
    condition     = length(aws_iam_role.batch) + length(aws_iam_role_policy.batch) == 0
    error_message = "Batch: without batch_backfill there is no role for it."
  }

  assert {
    condition     = output.batch_role_arn == null
    error_message = "Batch: the output says that there is none."
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
      ]
    })
    error_message = "Batch: the role may list the uploads and invoke this function: it reads and writes no upload."
  }

  assert {
    condition     = aws_iam_role.batch[0].permissions_boundary == var.permissions_boundary_arn
    error_message = "Batch: permissions_boundary_arn bounds this role too."
  }

  assert {
    condition     = aws_iam_role.batch[0].name == "${local.name}-batch" && output.batch_role_arn == aws_iam_role.batch[0].arn
    error_message = "Batch: the role's name comes from the stack's own, and the output names it."
  }
}
